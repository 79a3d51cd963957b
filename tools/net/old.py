"""Folders and reports that an earlier version wrote: made once, opened by each recording."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.net import run
from tools.net.commands import (
    GRAMMAR,
    IMAGE,
    QUICK,
    TRAIN_IMAGE,
    TRAIN_LANGUAGE,
    TRAIN_SAE,
    Case,
    case,
)

LANGUAGE = "old/language"
SAES = "--input-sae old/saes/blocks.0.mlp_in --output-sae old/saes/blocks.0.mlp_out"
LONG_IMAGE = TRAIN_IMAGE.replace("--epochs 3", "--epochs 300")
LONG_LANGUAGE = TRAIN_LANGUAGE.replace("--steps 24", "--steps 600").replace(
    "--evaluations 3", "--evaluations 60"
)
HOOKS = "--hook blocks.0.mlp_in --hook blocks.0.mlp_out"
LONG_SAE = TRAIN_SAE.replace("out/train_language/run", LANGUAGE).replace(
    "--tokens 2000", "--tokens 150000"
)
# Lines that run in the working folder; what they leave below old/ is kept.
MADE = [
    f"{TRAIN_IMAGE} --out old/image",
    f"{TRAIN_LANGUAGE} {GRAMMAR} --out {LANGUAGE}",
    f"{TRAIN_SAE.replace('out/train_language/run', LANGUAGE)} {HOOKS} --out old/saes",
    "train table tables/classes.csv --target y --out old/table",
    "train table tables/numbers.csv --target y --out old/numbers",
    "decompose old/image --top 3 --out old/pairs",
    "decompose old/models/deep --top 2 --null-samples 39 --out old/pairs_deep",
    "reproduce language/gates --corpus grammar --steps 1 --out old/study",
    *(f"convert models/sae --to {kind} --out old/sae_{kind}" for kind in ("saelens", "sparsify")),
    "convert models/transformer --to huggingface --out old/huggingface",
]
REPORTS = {  # name: the line whose stdout is the report
    "audit": "audit old/image --data-dir idx --null-samples 39",
    "layers": "audit models/deep_gated --null-samples 3",
    "difference": "audit models/tuned --baseline models/transformer --null-samples 3",
    "table": "audit old/table --table tables/classes.csv",
    "certificate": f"certify models/one {IMAGE} --samples 5",
    "attack": f"attack models/one {IMAGE} --epsilon 1",
    "trace": f"trace {LANGUAGE} --layer 0 {SAES} {QUICK}",
}
INTERRUPTED = {
    "old/image_interrupted": LONG_IMAGE,
    "old/language_interrupted": f"{LONG_LANGUAGE} {GRAMMAR}",
    "old/saes_interrupted": f"{LONG_SAE} {HOOKS}",
}


def make(target: Path) -> int:
    """Write the artefacts with the bilens that is imported here."""
    if target.exists():
        shutil.rmtree(target)
    with TemporaryDirectory(prefix="net-") as name:
        folder = Path(name).resolve()
        run.prepare(folder, None)
        shutil.copytree(folder / "models", folder / "old" / "models")
        shell = run.Shell(folder)
        for line in MADE:
            must_end_well(shell(line.split()), line)
        (folder / "old" / "reports").mkdir()
        for key, line in REPORTS.items():
            ended = shell([*line.split(), "--json"])
            must_end_well(ended, line)
            (folder / "old" / "reports" / f"{key}.json").write_text(ended.out, "utf-8")
        shell.close()
        for out, line in INTERRUPTED.items():
            interrupt([*line.split(), "--out", out], folder, run.environment())
        for run_folder in (folder / "old" / "study" / "work").glob("*"):
            shutil.rmtree(run_folder)  # measured cells are all that is read again
        shutil.copytree(folder / "old", target)
    print(f"artefacts of {run.SOURCE}: {target}")
    return 0


def must_end_well(ended: Any, line: str) -> None:
    """Artefacts are only made of lines that succeed."""
    if ended.code:
        raise SystemExit(f"`bilens {line}` ended with {ended.code}:\n{ended.err}")


def interrupt(words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    """Ctrl-C after the second line of progress."""
    process = subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-m", "bilens", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    assert process.stderr is not None
    seen = 0
    for line in process.stderr:
        seen += "/" in line and line.rstrip()[-1:].isdigit()
        if seen == 2:
            process.send_signal(signal.SIGINT)
            seen += 1
    if process.wait() != 130:
        raise SystemExit(f"`bilens {' '.join(words)}` was not interrupted: {process.returncode}")


def hear_ctrl_c() -> None:
    """A shell that starts a program in the background makes its children deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def cases() -> Iterator[Case]:
    """Commands that read the artefacts."""
    yield case("old_audit", "audit old/image --data-dir idx --null-samples 39 --json")
    yield case("old_audit_table", "audit old/table --table old/table/test.csv --json")
    yield case("old_explain", "explain old/numbers --table tables/numbers.csv --index 2 --json")
    yield case("old_decompose", "decompose old/image --top 3 --out old/pairs --json")
    yield case(
        "old_decompose_deep",
        "decompose old/models/deep --top 2 --null-samples 39 --out old/pairs_deep --json",
    )
    yield case("old_decompose_other", "decompose old/models/deep --top 4 --out old/pairs_deep")
    yield case("old_trace", f"trace {LANGUAGE} --layer 0 {SAES} {QUICK} --json")
    yield case("old_convert", "convert old/sae_saelens --to sparsify --out OUT/sae --json")
    yield case("old_llama", "convert old/huggingface --to bilens --out OUT/model --json")
    yield replace(
        case("old_study", "reproduce language/gates --corpus grammar --steps 1 --out old/study"),
        written="old/study",
    )
    yield case("old_study_other", "reproduce language/gates --corpus stories.txt --out old/study")
    yield case("old_resume_done", f"{TRAIN_IMAGE} --out old/image --resume --json")
    yield case("old_resume_other", f"{TRAIN_IMAGE} --out old/language --resume")
    for out, line in INTERRUPTED.items():
        resumed = case(f"old_resume_{Path(out).name}", f"{line} --out {out} --resume --json")
        yield replace(resumed, written=out)
