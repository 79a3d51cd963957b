"""A folder with a model of every kind, their audits and a trace."""

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner

import tiny
import traced_models
from bilens.cli.app import app
from commands import model_folder

HOSTILE = '<img src=x onerror="alert(1)">'


def run(*line: object) -> None:
    """`bilens LINE`, which may find that a model fails."""
    found = CliRunner().invoke(app, [*map(str, line)])
    assert found.exit_code in (0, 1), found.output
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception


def write_table(file: Path) -> Path:
    """Two classes that a product of columns tells apart, beside a column of categories."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    frame = pd.DataFrame(x * [1, 20, 0.1] + [5, 300, 0], columns=["width", "height", HOSTILE])
    frame["colour"] = np.where(rng.random(120) < 0.5, "red", "blue")
    frame["answer"] = np.where(x[:, 0] * x[:, 1] > 0, "yes", "no")
    frame.to_csv(file, index=False)
    return file


def write_folder(root: Path) -> Path:
    """Images, a table and a language model, in a folder that has a history."""
    root.mkdir()
    model_folder(root / "images", tiny.trained(), input_shape=(tiny.SIDE, tiny.SIDE))
    model_folder(root / HOSTILE, tiny.classifier())
    table = write_table(root / "table.csv")
    run("train", "table", table, "--target", "answer", "--out", root / "table")
    data = tiny.write_idx(root.parent / "idx", tiny.images(name="mnist"))
    rotations = ("--null-samples", tiny.ROTATIONS)
    for more in ((), ("--data", data, "--dataset", "mnist")):
        run("audit", root / "images", "--history", root, *rotations, *more)
    run("audit", root / "table", "--history", root, "--data", table)
    model, first, second = traced_models.write_all(root / "language")
    trace = ["--layer", 0, "--input-sae", first, "--output-sae", second, "--outputs", 2]
    trace += ["--pairs", 4, "--features", 3, "--top", 4, "--tokens", 400]
    found = CliRunner().invoke(app, [*map(str, ("--quiet", "trace", model, *trace, "--json"))])
    assert found.exit_code == 0, found.output
    (root / "trace.json").write_text(found.stdout, "utf-8")
    return root


def unpacked(html: str) -> str:
    """A file with each part that is packed in it beside it."""
    found = re.search(r'id="embedded">(.*?)</script>', html)
    assert found
    parts = (gzip.decompress(base64.b64decode(part)) for part in json.loads(found[1]).values())
    return html + b"".join(parts).decode("utf-8", "replace")
