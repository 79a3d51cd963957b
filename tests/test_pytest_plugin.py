"""The plugin of pytest: a test fails with what failed, passes with the report, starts no slower."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch

import tiny
from commands import model_folder
from test_architecture import HEAVY, loaded_by

REPOSITORY = Path(__file__).parents[1]
TESTS = '''
"""One process for all: torch is loaded once."""
import numpy as np, pytest, torch
import bilens as bl, tiny

FEW = {"null_samples": 39}

def changed():
    model = tiny.classifier()
    with torch.no_grad():
        model.head.weight[0] *= 1.5
    return model

def test_passing_module(assert_audit):
    report = assert_audit(tiny.classifier(), tiny.classifier(), fail_on=["changed_layers"], **FEW)
    assert isinstance(report, bl.AuditReport)
    assert report.record.conditions[0].condition == "changed_layers"

def test_passing_path(assert_audit):
    assert_audit("model", baseline=tiny.classifier(), fail_on=["changed_layers"], **FEW)

def test_passing_reading(assert_audit):
    assert assert_audit("weights.pt", allow_pickle=True).record.source.path == "weights.pt"

def test_failing_module(assert_audit):
    assert_audit(changed(), tiny.classifier(), fail_on=["changed_layers"], **FEW)

def test_failing_path(assert_audit):
    assert_audit("model", baseline=changed(), fail_on=["changed_layers"], **FEW)

def test_failing_data(assert_audit):
    data = tiny.images()
    given = (data.test_images, data.test_labels)
    assert_audit(tiny.classifier(), data=given, fail_on=["accuracy<0.999"], **FEW)

def test_failing_now(assert_audit):
    model = bl.load("model")
    with torch.no_grad():
        model.module.head.weight[0] *= 1.5
    assert_audit(model, baseline="model", fail_on=["changed_layers"], **FEW)

def test_failing_estimator(assert_audit):
    from sklearn.neural_network import MLPRegressor
    x = np.random.default_rng(0).normal(size=(50, 4))
    net = MLPRegressor(hidden_layer_sizes=(3,), max_iter=2, random_state=0).fit(x, x[:, 0])
    net.coefs_[0][:, 0] = 0
    net.intercepts_[0][0] = 0
    assert_audit(net, fail_on=["dead_units"], null_samples=3)

def test_wrong_model(assert_audit):
    assert_audit(3)

def test_wrong_path(assert_audit):
    assert_audit("nowhere")

def test_wrong_condition(assert_audit):
    assert_audit(tiny.classifier(), fail_on="beauty")

def test_wrong_option(assert_audit):
    assert_audit(tiny.classifier(), beauty=3)

def test_wrong_reading(assert_audit):
    assert_audit(tiny.classifier(), allow_pickle=True)
'''


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What pytest says of each test above, in a process that finds the plugin by its entry point.

    The entry point is that of pyproject.toml, in the metadata of a distribution that is made here.
    """
    folder = tmp_path_factory.mktemp("plugin")
    model_folder(folder / "model")
    torch.save(tiny.classifier().state_dict(), folder / "weights.pt")
    return run_pytest(folder, TESTS)


def run_pytest(folder: Path, tests: str) -> dict[str, str]:
    told = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    ((name, module),) = told["project"]["entry-points"]["pytest11"].items()
    assert hasattr(import_module(module), "assert_audit")
    made = folder / "site" / "made_here-0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: made-here\nVersion: 0\n")
    (made / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    (folder / "test_models.py").write_text(tests)
    environment = tiny.environment()
    paths = [str(made.parent), str(Path(__file__).parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = ":".join(paths)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--tb=long"]
    done = subprocess.run(
        [*command, "test_models.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return split(done.stdout)


def split(out: str) -> dict[str, str]:
    """Return what is said of each test that failed, and PASSED of the others."""
    found = {}
    for line in out.splitlines():
        if line.startswith("PASSED "):
            found[line.partition("::")[2].strip()] = "PASSED"
    failures = out.partition("= FAILURES =")[2].partition("= PASSES =")[0]
    for part in failures.split("\n______")[1:]:
        title, _, said = part.partition("\n")
        found[title.strip("_ ")] = said
    return found


def test_what_passes_passes(ended: dict[str, str]) -> None:
    passed = {name for name, said in ended.items() if said == "PASSED"}
    assert passed == {"test_passing_module", "test_passing_path", "test_passing_reading"}, ended


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "module",
            ["the audit of the BilinearClassifier in memory, beside its baseline in memory"],
        ),
        ("module", ["changed_layers: holds, the value is 1", "weights of the model, 100.0% were"]),
        ("path", ["the audit of model, beside its baseline", "changed_layers: holds"]),
        ("data", ["accuracy<0.999: holds", "on 60 test"]),
        ("now", ["the BilinearClassifier in memory, beside its baseline model failed", "holds"]),
        ("estimator", ["MLP", "dead_units: holds, the value is 1"]),
    ],
)
def test_what_fails_says_of_what_and_why(
    ended: dict[str, str], name: str, words: list[str]
) -> None:
    said = ended[f"test_failing_{name}"]
    assert "Failed: the audit of " in said
    for word in [*words, "What was not looked at: "]:
        assert word in said, said
    assert "pytest_plugin.py" not in said


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("model", "UsageError: an audit reads a model, got a int"),
        ("path", "CheckpointError: nowhere: no such file or folder"),
        ("condition", "UsageError: fail_on is the text 'beauty': pass a list"),
        ("option", "UnknownOptionError: there is no option 'beauty'"),
        ("reading", "UsageError: assert_audit: allow_pickle is of a file"),
    ],
)
def test_bad_input_is_one_error_at_the_line_of_the_test(
    ended: dict[str, str], name: str, error: str
) -> None:
    said = ended[f"test_wrong_{name}"]
    errors = [line for line in said.splitlines() if line.startswith("E ")]
    assert len(errors) == 1, said
    assert error in errors[0], said
    assert "src/bilens" not in said, said


def test_pytest_starts_with_nothing_heavy() -> None:
    loaded = loaded_by("import bilens.pytest_plugin")
    assert "bilens" in loaded
    assert loaded.isdisjoint(HEAVY)
