"""Guards against names and shares that are shown as others, and ties that are broken."""

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.findings.performance import classification
from bilens.report.sections.overview import clean_names
from contract.table import cell

LONG = "Department of Transportation and Infrastructure, regional office number "
NAMES = [
    (f"{LONG}1", f"{LONG}2", f"{LONG}1 and 2"),
    tuple(f"{'x' * 30} {middle} {'y' * 30}" for middle in ("one", "two", "three")),
    ("a", "a ", "b"),
    ("a b", "a  b", "a\tb"),
    ("", " ", "b"),
    ("a", "a\u200b", "a\u2009"),
]


@pytest.mark.parametrize("names", NAMES)
def test_names_are_shown_as_different_ones(names: tuple[str, ...]) -> None:
    seen = [" ".join(name.split()) for name in clean_names(names)]
    assert all(seen)
    assert len({*seen}) == len(names)


@cell("audit", "other names")
def test_classes_and_columns_are_told_apart_in_the_report() -> None:
    k = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 3)) + np.eye(3)[k] * 3
    columns = [f"{LONG}{letter}" for letter in "pqr"]
    table, y = pd.DataFrame(x, columns=columns), np.array([f"{LONG}{n}" for n in "123"])[k]
    report = bl.sklearn.BilinearClassifier().fit(table, y).report(table, y)
    texts = re.findall(r">\s*(Department [^<]*?)\s*<", report.to_html())
    shown = {text for text in texts if len(text) <= 40}
    assert {text[-2:] for text in shown} >= {f" {end}" for end in "pqr123"}


@cell("audit", "repeated rows")
def test_a_share_of_all_but_one_row_is_not_all() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 3))
    names = np.array(["no", "yes"])
    usual = {"alpha": 3.0, "quadratic_scale": 0.3, "column_scale": "standard"}  # not sure of all
    model = bl.sklearn.BilinearClassifier(**usual)  # type: ignore[arg-type]
    y = model.fit(x[:500], names[(x[:500, 0] > 0).astype(int)]).predict(x)
    y[7] = names[int(y[7] == "no")]
    report = bl.audit(model, data=(x, y))
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", report.to_html()))
    assert "99.9% of the 3,000 rows are predicted right" in text
    assert not re.search(r"100\.0%[^.]{0,40}(answered|predicted) right", text)
    assert not re.search(r" 7 (no|yes) (no|yes) 100\.0%", text)


def exact_auc(x: Tensor, positive: Tensor) -> float:
    """The area for logits of whole numbers, ordered by what is exactly equal."""
    keys = [(one[0], *sorted(one[1:])) for one in x.tolist()]
    sums = {key: sum(float(np.exp(other - key[0])) for other in key[1:]) for key in keys}
    ranks = [-round(sums[key], 9) for key in keys]
    pairs = itertools.product(
        (r for r, hit in zip(ranks, positive, strict=True) if hit),
        (r for r, hit in zip(ranks, positive, strict=True) if not hit),
    )
    won = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    return sum(won) / len(won)


@cell("audit", "permuted outputs", "common function")
@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_that_are_equal_are_ties(classes: int, size: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    for _ in range(30):
        x = torch.randint(0, 3, (16, classes), generator=generator).double() * size
        labels = torch.randint(0, classes, (16,), generator=generator)
        shifted = x + torch.randint(0, 40, (16, 1), generator=generator) / 10
        for logits in (x, shifted):
            told = classification(logits, labels, list(map(str, range(classes)))).classes[0].auc
            if told is not None:
                assert told == pytest.approx(exact_auc(x, labels == 0), abs=1e-12)


@cell("audit", "other dtype")
@pytest.mark.parametrize("kind", ["Q8_0", "F16"])
def test_weights_are_said_to_be_stored_as_the_file_stores_them(tmp_path: Path, kind: str) -> None:
    """Not as the float32 that they are turned into for reading."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    generator = np.random.default_rng(0)
    for name, shape in {"gate": (64, 32), "up": (64, 32), "down": (32, 64)}.items():
        numbers = generator.standard_normal(shape).astype(np.float32)
        stored = gguf.GGMLQuantizationType[kind]
        codes = gguf.quants.quantize(numbers, stored)
        writer.add_tensor(f"blk.0.ffn_{name}.weight", codes, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = bl.audit(bl.load(tmp_path / "m.gguf"), null_samples=3).record.model
    assert found.dtype == {"F16": "float16"}.get(kind, kind)


@cell("audit", "other dtype")
def test_all_types_of_a_module_are_said() -> None:
    first = torch.nn.Embedding(4, 6, dtype=torch.float16)
    mlp = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mlp = first, mlp

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.mlp(x + self.first.weight[0].to(x))
            return found

    assert bl.audit(Model(), null_samples=3).record.model.dtype == "float32, float16"
