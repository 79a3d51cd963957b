"""Guards the effort of a first contribution: what a rule, field, family, chart or study touches."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[1]
SRC, STUDIES = Path("src/bilens"), Path("studies/src/bilens_studies")
MOST = {"rule": 3, "field": 2, "family": 1, "chart": 2, "study": 1}
# File → what is put before a text of it; all of a new file where the text is empty.
Edits = Mapping[Path, tuple[str, str]]


def sentences(language: str) -> tuple[str, str]:
    """The sentences of a rule in one language, before those of another rule."""
    said = {"pass": "{of}, {value}", "warn": "odd: {layers}", "risk": "r", "next": "n"}
    lines = [f'  "rule.odd_width.{key}": "{language} {text}",\n' for key, text in said.items()]
    lines += [
        f'  "about.odd_width": "{language} a", \n',
        f'  "rule.odd_width.title": "{language}",\n',
    ]
    return "".join(lines), '  "rule.huge_norm.pass"'


CONTRIBUTIONS: dict[str, Edits] = {
    "rule": {
        SRC / "findings/rules/layers.py": (
            "@rule(counted)\n"
            "def odd_width(evidence: Evidence) -> Iterator[Values]:\n"
            '    """Count layers of odd width."""\n'
            "    if layers := evidence.layers:\n"
            "        odd = {layer.name: layer.d_input % 2 for layer in layers}\n"
            "        yield total(odd, len(layers))\n\n\n",
            '@rule(\n    counted,\n    readings=LAYERS,\n    beyond="fail",\n',
        ),
        SRC / "report/strings/en.json": sentences("English"),
        SRC / "report/strings/ja.json": sentences("Japanese"),
    },
    "field": {
        SRC / "records/layer_readings.py": (
            '    widest: Annotated[Count, "the largest of its sizes"] = 0\n',
            "    outputs: Annotated[OutputModes | None, ",
        ),
        SRC / "findings/layer_reading.py": (
            "        widest=max(subject.sizes),\n",
            "        class_centred=subject.classes,\n",
        ),
    },
    "family": {
        SRC / "io/formats/families.py": ('    "wonder": Family(),\n', '    "phi3": gated(FUSED),\n')
    },
    "chart": {
        SRC / "report/charts/scores.py": (
            "def width_bars(t: Catalogue, widths: Named) -> Figure:\n"
            '    """Draw a bar for the width of each layer."""\n'
            '    bars = [Bar(name, value, f"{value:g}") for name, value in widths]\n'
            '    texts = "widths", "of layers"\n'
            "    return bar_rows(texts, bars, widths, width=300, name_width=90)\n\n\n",
            "def bar_rows(\n",
        ),
        SRC / "report/sections/layers.py": (
            "    from bilens.report.charts.scores import width_bars\n\n"
            "    widths = [(layer.name, float(layer.d_input)) for layer in layers]\n"
            '    drawn.append(("Widths", width_bars(t, widths)))\n',
            "    return drawn\n",
        ),
    },
    "study": {
        STUDIES / "wonders.py": (
            '"""A study of nothing."""\n\n'
            "from bilens_studies.study import Study\n\n\n"
            "class WonderStudy(Study):\n"
            '    """It measures one number."""\n\n'
            '    name, title, uses = "wonders", "How much one and one are", frozenset()\n'
            '    text = "They are {{ result.sum }}."\n\n'
            "    def cells(self, options):\n"
            '        return {"one": lambda context: {"sum": 2}}\n\n'
            "    def document(self, options, cells):\n"
            '        return cells["one"]\n',
            "",
        )
    },
}
USED = """
import json, sys, torch
from pathlib import Path
import bilens as bl
from bilens_studies.reproduction import reproduce
from bilens_studies.study import StudyOptions

model = bl.load("family")  # of a type that was not known
report = bl.audit(model, null_samples=19)
rule = next(one for one in report.record.verdict if one.rule == "odd_width")
pages = {lang: report.to_html(lang=lang) for lang in ("en", "ja")}
study = reproduce(["wonders"], Path("out"), StudyOptions())
print(json.dumps({
    "rule": [rule.outcome, "English odd:" in pages["en"], "Japanese odd:" in pages["ja"]],
    "field": report.to_dict()["layers"]["readings"][0]["widest"],
    "chart": "Widths" in pages["en"],
    "study": study["studies"]["wonders"]["result"],
    "page": "They are 2." in "".join(p.read_text() for p in Path("out").rglob("*.md")),
}))
"""


def contribute(root: Path, edits: Edits) -> None:
    for path, (text, before) in edits.items():
        file = root / path
        there = file.read_text("utf-8") if before else ""
        assert there.count(before) == 1 or not before, f"{path}: {before!r}"
        file.write_text(there.replace(before, text + before) if before else text, "utf-8")


def family(folder: Path) -> None:
    """A model folder of a type that nobody knew, three inputs wide."""
    folder.mkdir()
    config = {
        "model_type": "wonder",
        "hidden_act": "silu",
        "num_hidden_layers": 1,
        "hidden_size": 3,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    shapes = {"gate_proj": (4, 3), "up_proj": (4, 3), "down_proj": (3, 4)}
    tensors = {
        f"model.layers.0.mlp.{name}.weight": torch.randn(*shape, generator=generator)
        for name, shape in shapes.items()
    }
    tensors["model.embed_tokens.weight"] = torch.randn(7, 3, generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_contributions_touch_few_files() -> None:
    assert {name: len(edits) for name, edits in CONTRIBUTIONS.items()} == MOST


def test_contributions_of_so_few_files_work(tmp_path: Path) -> None:
    """All five in one copy of the source, used as a user would."""
    for folder in (SRC, STUDIES):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    for edits in CONTRIBUTIONS.values():
        contribute(tmp_path, edits)
    family(tmp_path / "family")
    path = ":".join(str(tmp_path / folder.parent) for folder in (SRC, STUDIES))
    run = subprocess.run(
        [sys.executable, "-c", USED],
        cwd=tmp_path,
        env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == {
        "rule": ["warn", True, True],
        "field": 4,
        "chart": True,
        "study": {"sum": 2},
        "page": True,
    }
