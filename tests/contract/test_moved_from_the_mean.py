"""Guards against effects from another starting point, and files of another time, than are named."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bilens.findings.column_effects import category_effects
from bilens.interp.interventions import InputDirections, ablation
from bilens.records.column_readings import TableColumn, TableReading
from bilens.sweep.manifest import ManifestRow, seen_of
from builders import randn, random_map
from contract.table import cell


@cell("trace", "own object")
def test_an_ablation_sets_coordinates_to_their_mean() -> None:
    readers, mean, x = randn(2, 5), randn(5, seed=1), randn(7, 5, seed=2)
    patterns = torch.linalg.pinv(readers).T  # reader i reads 1 from pattern i and 0 from others
    directions = InputDirections(readers, patterns, mean, torch.ones(2))
    first = torch.tensor([True, *[False] * 6])
    made = ablation(directions, lambda _: first)(x)
    assert torch.equal(made[1:], x[1:])
    assert torch.allclose(made[0] @ readers.T, mean @ readers.T)
    rest = torch.linalg.qr(readers.T, mode="complete").Q[:, 2:]  # what no reader reads
    assert torch.allclose(made[0] @ rest, x[0] @ rest)


@cell("audit", "own object", "other units")
def test_what_a_text_adds_is_the_change_from_the_mean_of_the_column() -> None:
    names = ("a", "kind=x", "kind=y")
    mean, scale = torch.tensor([3.0, 0.2, 0.5]).double(), torch.tensor([2.0, 0.4, 0.5]).double()
    f = random_map(d_in=3, d_out=2)
    columns = TableColumn("a", "number", ("a",)), TableColumn("kind", "category", names[1:])
    (found,) = category_effects(f, names, TableReading(columns, ()), mean, scale)
    rows = torch.tensor([[3.0, 1, 0], [3.0, 0, 1]]).double()
    by_hand = f((rows - mean) / scale) - f(torch.zeros(1, 3).double())
    assert found.levels == ("x", "y")
    for told, expected in zip(found.effects, by_hand.T.tolist(), strict=True):
        assert told == pytest.approx(expected)


@cell("sweep", "resumed")
def test_activations_of_the_same_size_are_not_the_same_activations(tmp_path: Path) -> None:
    row = ManifestRow(0, "layer", "plain", "relu", 2, 3, 2, (), 0, {})
    file = tmp_path / "layer.safetensors"
    save_file({"x": torch.zeros(4)}, file)
    before, seen = file.stat(), seen_of(str(tmp_path), [row])
    save_file({"x": torch.ones(4)}, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    assert file.stat().st_size == before.st_size
    assert seen_of(str(tmp_path), [row]) != seen
