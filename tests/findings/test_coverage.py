"""What share of a model was read: against counts made by hand, and never silently in part."""

import pathlib

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import bilens as bl
import tiny
import tiny_language_models as language
from bilens.io.tensor_names import fold_names
from bilens.records.decision import Coverage
from builders import randn


def coverage(model: object, **options: float) -> tuple[Coverage, bool | None]:
    """Return the coverage of an audit, and whether it passed."""
    report = bl.audit(model, null_samples=None, **options)  # type: ignore[arg-type]
    found = report.record.coverage
    assert found is not None
    return found, report.passed


def assumed(found: Coverage) -> int:
    """Return the parameters that are approximated under an assumed input alone."""
    return sum(group.parameters for group in found.groups if group.reason == "assumed")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_classifier_of_one_layer_is_read_whole() -> None:
    module = tiny.classifier()
    found, _ = coverage(module)
    assert found.exact == found.parameters == count(module)
    assert found.is_whole


def test_a_partial_reading_is_told_and_never_passes(tmp_path: pathlib.Path) -> None:
    model = language.write(tmp_path, "gpt2", torch.float32)
    found, passed = coverage(bl.load(tmp_path), threshold=0.0)
    inside = sum(count(block.mlp) for block in model.transformer.h)
    assert (found.exact, found.approximate) == (0, 0)
    assert assumed(found) == inside  # of N(0, I)
    assert found.unread == found.parameters == count(model)
    assert passed is None
    attention = [group for group in found.groups if "attn.c_attn.weight" in group.name]
    assert attention[0].reason == "unread"
    inner = [group for group in found.groups if ".mlp." in group.name]
    assert {group.reason for group in inner} == {"assumed"}


def test_a_refused_fit_is_not_read() -> None:
    mlp = nn.Sequential(nn.Linear(3, 50), nn.Tanh(), nn.Linear(50, 2)).double()
    with torch.no_grad():
        mlp[0].weight.mul_(20)
    found, passed = coverage(mlp, threshold=1.0)
    assert (found.unread, found.parameters) == (count(mlp), count(mlp))
    assert {group.reason for group in found.groups} == {"refused"}
    assert passed is None


def test_unread_parts_of_a_module_are_counted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled = torch.sin(self.norm(self.conv(x))).amax(dim=(2, 3))
            return self.down(torch.relu(self.up(pooled)))  # type: ignore[no-any-return]

    net = Net().double().eval()
    found, passed = coverage(net, threshold=0.0)
    assert (found.approximate, assumed(found)) == (0, count(net.up) + count(net.down))
    assert found.parameters == count(net)  # running means are no parameters
    assert passed is None


def test_a_guessed_layout_is_unverified(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mlp.safetensors"
    save_file({"0.weight": randn(6, 4), "2.weight": randn(3, 6)}, path)
    for roles, layout in ((None, "guessed"), ({"up": "0.weight", "down": "2.weight"}, "said")):
        model = bl.load(path, activation="relu", roles=roles)
        assert model.exactness is None
        report = bl.audit(model, threshold=0.0, fail_on=["layout"])
        found = report.record.coverage
        assert found is not None
        assert (found.layout, found.checked_against) == (layout, "")
        assert assumed(found) == found.unread == found.parameters
        assert [*report.failed_rules] == ["layout"]


def test_codes_that_are_not_read_are_parameters_and_masks_are_none(tmp_path: pathlib.Path) -> None:
    """Broken once: whole integers did not count, and every parameter was said to be read."""
    path = tmp_path / "mlp.safetensors"
    tensors = {"fc1.weight": randn(6, 4), "fc2.weight": randn(3, 6)}
    codes = {"attn.qweight": torch.zeros(9, 9, dtype=torch.int8)}
    mask, places = torch.ones(1, 1, 5, 5), torch.arange(5)
    none = {"attn.bias": mask, "h.attention.bias": mask.byte(), "at.position_ids": places.int()}
    save_file({**tensors, **codes, **none, "index": places}, path)
    found, _ = coverage(bl.load(path, activation="relu"), threshold=0.0)
    assert (found.parameters, found.unread - assumed(found)) == (42 + 81, 81)
    assert found.groups[0].name == "attn.qweight"


def test_a_condition_on_coverage_fails(tmp_path: pathlib.Path) -> None:
    language.write(tmp_path, "gpt2", torch.float32)
    model = bl.load(tmp_path)
    assert not bl.audit(model, fail_on=["coverage"]).passed
    assert not bl.audit(model, fail_on=["coverage<0.01"], threshold=0.0).passed


def test_on_data_an_approximation_is_a_reading_and_on_an_assumed_input_it_is_none() -> None:
    """Broken once: R² under N(0, I) passed, and counted as read."""
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x = randn(600, 3, seed=1)
    told = {rows: bl.audit(mlp, data) for rows, data in ((0, None), (600, (x, mlp(x).argmax(1))))}
    for rows, report in told.items():
        found, decision = report.record.coverage, report.record.decision
        assert found is not None
        assert decision is not None
        r2 = next(one for one in report.record.verdict if one.rule == "r2")
        if rows:
            assert (found.approximate, assumed(found)) == (count(mlp), 0)
            assert (r2.outcome, decision.answer) == ("pass", "conditions")
        else:
            assert (found.approximate, assumed(found)) == (0, count(mlp))
            assert (r2.outcome, decision.answer, report.passed) == ("info", "not_read", None)
            assert "assumed" in decision.reasons
            assert r2.values["value"] > 0.9  # the number stands there
            ticks = {one.rule for one in report.record.verdict if one.outcome == "pass"}
            maps = {"r2", "coverage", "low_rank", "dominant_inputs", "unstable_directions"}
            assert not ticks & maps


def test_a_layer_that_is_not_finite_is_told_and_does_not_end_the_audit(
    tmp_path: pathlib.Path,
) -> None:
    language.write(tmp_path, "gpt2", torch.float32)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "h.1.mlp.c_fc.weight" in name)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    report = bl.audit(bl.load(tmp_path), threshold=0.0)
    found = report.record.coverage
    assert found is not None
    assert found.checked_against == ""
    assert [group.reason for group in found.groups if "h.1.mlp.c_fc.weight" in group.name] == [
        "broken"
    ]
    assert [one.rule for one in report.record.verdict if one.outcome == "fail"] == ["non_finite"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["h.0.w", "h.1.w", "h.2.w"], {"h.*.w": ["h.0.w", "h.1.w", "h.2.w"]}),
        (["0.w", "2.w"], {"0.w": ["0.w"], "2.w": ["2.w"]}),
        (["fc1.w", "fc2.w", "fc3.w"], {"fc1.w": ["fc1.w"], "fc2.w": ["fc2.w"], "fc3.w": ["fc3.w"]}),
    ],
)
def test_names_that_differ_in_numbers_are_one_group(
    names: list[str], expected: dict[str, list[str]]
) -> None:
    assert fold_names(names) == expected


def test_nan_outside_of_the_layers_fails_and_is_named(tmp_path: pathlib.Path) -> None:
    """Broken once: what no layer read was never looked at, and "nothing suspicious" was found."""
    made = {
        "fc1.weight": torch.randn(6, 4),
        "fc2.weight": torch.randn(4, 6),
        "attention.query": torch.randn(3, 3),
        "embedding": torch.randn(5, 4),
    }
    how = {"roles": {"up": "fc1.weight", "down": "fc2.weight"}}
    for broken in (False, True):
        if broken:
            made["attention.query"][1, 2] = torch.nan
        save_file(made, tmp_path / "m.safetensors")
        model = bl.load(tmp_path / "m.safetensors", activation="relu", transposed=False, **how)
        record = bl.audit(model, null_samples=3, fail_on=["non_finite"]).record
        (found,) = [one for one in record.verdict if one.rule == "non_finite"]
        assert found.outcome == ("fail" if broken else "pass")
        assert (found.values["value"], found.values["tensors"]) == (int(broken), 2)
        assert found.values["layers"] == ("attention.query" if broken else "")
        assert record.conditions is not None
        assert record.conditions[0].failed is broken
        assert record.decision is not None
        assert (record.decision.answer == "do_not_use") is broken
