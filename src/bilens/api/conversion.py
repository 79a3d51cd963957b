"""A language model made bilinear: stages in a folder, resumable to the same bits on the CPU."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
from msgspec import structs

from bilens.api.provenance import versions
from bilens.api.quadratic_fit import fit_layers_of
from bilens.base import silent
from bilens.base.errors import InterruptedRunError, UsageError
from bilens.base.files import read_json, write_file
from bilens.io.converted_folder import save_converted
from bilens.io.host import Host, copy_companions, open_host, tokenizer_at
from bilens.io.loaded_model import LoadedModel
from bilens.records.decomposition import QuadraticFits
from bilens.train.corpus import CorpusOptions
from bilens.train.distillation import compared, distil
from bilens.train.layer_fit import ConversionRecipe, convert_layers
from bilens.train.layer_inputs import Mixture, Walk, check_enough
from bilens.train.loop import CHECKPOINTS
from bilens.train.recipe import Device, find_device
from bilens.train.run_folder import (
    CONVERSION_NAME,
    RUN_NAME,
    check_folder,
    interruptible,
    written_by_us,
)

LINE_TOKENS, JUDGED_TEXTS = 2048, 16  # of held-out text, on the way; beside those fitted to
BFLOAT16_LIMIT = 0.01  # nats that storage in bfloat16 may cost
CHANCE = 0.8  # of log(vocabulary): a loss that says that the model does not know the text

Report = Callable[[str, int, int, str], None]  # stage, done, of how many, what there is to say


def convert_to_bilinear(
    model: Path,
    texts: Sequence[CorpusOptions],
    folder: Path,
    recipe: ConversionRecipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    report: Report = silent,
    say: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Replace the MLPs of a language model by bilinear ones; return what came of it, as JSON.

    `model` is a folder of Hugging Face, a .gguf file or a run of `bilens train language`; each
    corpus is a domain, and its held-out documents are only measured on.
    """
    if not texts:
        raise UsageError("a conversion to bilinear learns from text: give some with --text.")
    chosen, host = find_device(device), open_host(model)
    host.module.to(chosen)
    corpora = [one.load(report=say) for one in texts]
    mixture = Mixture(corpora, tokenizer_at(host), recipe.n_ctx, recipe.seed)
    run = Conversion(host, mixture, recipe, folder, report, say)
    check_folder(folder, run.about, resume, overwrite, "text")
    for note in host.notes:
        say(note)
    with written_by_us(folder, resume):
        return run.run()


@dataclass(eq=False)
class Conversion:
    """A conversion in a folder: `run` takes it through its stages."""

    teacher: Host
    mixture: Mixture
    recipe: ConversionRecipe
    folder: Path
    report: Report
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        recipe, teacher, mixture = self.recipe, self.teacher, self.mixture
        how = {**recipe.to_dict(), "teacher_sha256": teacher.sha256}
        self.about = {"recipe": how, "data": mixture.fingerprint}  # of the run that is resumed
        self.work = self.folder / CHECKPOINTS
        blocks, longest = range(len(teacher.blocks)), teacher.n_ctx
        if recipe.n_ctx > longest:
            raise UsageError(f"the model reads {longest} tokens; choose such a --context-length.")
        self.chosen = [b for b in recipe.layers or blocks if b not in recipe.keep]
        if {*recipe.layers, *recipe.keep} - {*blocks} or not self.chosen:
            raise UsageError(f"the model has the blocks 0 to {blocks[-1]}: convert one or more.")
        self.layer_texts = max(1, recipe.layer_tokens // recipe.n_ctx)
        count = max(1, LINE_TOKENS // recipe.n_ctx // len(mixture.held_out))
        self.line_texts = torch.cat([texts[:count] for texts in mixture.held_out.values()])
        self.student = teacher.twin()
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        result, recipe, sites = self.folder / CONVERSION_NAME, self.recipe, self.teacher.sites
        if result.exists():
            self.say(f"{self.folder} is finished: nothing is left to do.")
            return read_json(result)
        write_file(self.folder / RUN_NAME, json.dumps(self.about, indent=2).encode())
        check_enough(self.mixture.tokens, self.layer_texts * recipe.n_ctx, "fitting the layers")
        layers = self.fit_layers()
        after_layers, notes = self.measured(), [*self.teacher.notes]
        if "distillation" not in recipe.skip:
            self.distil()
        stored, domains = self.bfloat16_added(), self.measured()
        how = "can be" if stored <= BFLOAT16_LIMIT else "should not be"
        notes.append(f"It {how} stored in bfloat16, which adds {stored:+.4f} nats.")
        dead = [one["name"] for one in layers if "r_squared" not in one]
        notes += [f"The output of {name} never varies." for name in dead]
        found = {
            "schema_version": 1,
            "kind": "bilinear conversion",
            "folder": str(self.folder),
            "loaded_by": save_converted(self.student, self.folder),
            "layers": layers,
            "kept": [site.name for site in sites if site.block not in self.chosen],
            "after_layers": after_layers,
            "domains": domains,
            "bfloat16_added": stored,
            "seconds": self.seconds,
            "notes": notes,
            "made_by": {"teacher": str(self.teacher.source), **versions()},
        }
        copy_companions(self.teacher, self.folder)
        write_file(result, (json.dumps(found, indent=1) + "\n").encode())
        return found

    def fit_layers(self) -> list[dict[str, Any]]:
        fit, began = self.mixture.texts(JUDGED_TEXTS, self.layer_texts), time.monotonic()
        texts, layers = (fit, self.mixture.texts(0, JUDGED_TEXTS)), list[dict[str, Any]]()
        arguments = self.chosen, texts, self.recipe, self.work / "layers"
        total = sum(site.block in self.chosen for site in self.teacher.sites)
        with interruptible() as interrupted:
            for one in convert_layers(self.student, *arguments):
                layers.append(one)
                self.seconds["layers"] = time.monotonic() - began
                speed = len(layers) * fit.numel() / max(self.seconds["layers"], 1e-9)
                text = f"{one['name']}, R² {one.get('r_squared')!s:.5}, {speed:,.0f} tokens/s"
                self.report("layers", len(layers), total, text)
                self.stop_if(interrupted, one["name"])
        return layers

    def distil(self) -> None:
        recipe, began = self.recipe, time.monotonic()
        sites = [site for site in self.student.sites if site.block in self.chosen]
        trained = [one for site in sites for one in self.student.at(site).parameters()]
        steps = (recipe.tokens // recipe.n_ctx - self.layer_texts) // recipe.batch_size
        texts = self.mixture, JUDGED_TEXTS + self.layer_texts, self.line_texts
        run = distil(self.teacher, self.student, trained, texts, recipe, max(1, steps), self.work)
        with interruptible() as interrupted:
            for line in run:
                text = f"KL {line['kl']:.4f}, held out {line['held_out_kl']:.4f}, loss "
                text += f"{line['loss_added']:+.4f}, {line['tokens_per_second']:,.0f} tokens/s"
                self.report("distillation", line["step"], steps, text)
                with (self.work / "distillation.jsonl").open("a") as curve:
                    curve.write(json.dumps(line) + "\n")
                self.stop_if(interrupted, f"step {line['step']}")
        self.seconds["distillation"] = time.monotonic() - began

    def stop_if(self, interrupted: Event, where: str) -> None:
        if interrupted.is_set():
            raise InterruptedRunError(f"Interrupted behind {where}: go on with --resume.")

    def measured(self) -> list[dict[str, Any]]:
        """Return what the student loses on each domain, in nats per token, paired over texts."""
        found = []
        count = max(1, self.recipe.measured_tokens // self.recipe.n_ctx)
        for name, held_out in self.mixture.held_out.items():
            rows = compared(self.teacher, self.student, texts := held_out[:count])
            teacher, loss, kl, same = rows.mean(dim=0).tolist()
            error = float((rows[:, 1] - rows[:, 0]).std(correction=0)) / math.sqrt(len(rows))
            entry = {"name": name, "tokens": texts[:, 1:].numel(), "teacher_loss": teacher}
            entry |= {"loss": loss, "loss_added": loss - teacher, "error": error}
            found.append(entry | {"kl": kl, "same_top_token": same})
            self.say(f"{name}: {loss - teacher:+.4f} ± {error:.4f} nats per token so far.")
            if teacher > CHANCE * math.log(self.teacher.config.vocab_size):
                self.say(f"The teacher hardly knows this text: its loss is {teacher:.2f}.")
        return found

    def bfloat16_added(self) -> float:
        rounded = self.student.twin(share=False)
        for parameter in rounded.module.requires_grad_(False).parameters():
            parameter.copy_(parameter.bfloat16())
        exact, stored, *_ = compared(self.student, rounded, self.line_texts).mean(dim=0)
        return float(stored - exact)


def fit_on_text(
    path: Path, text: CorpusOptions, tokens: int, layers: Sequence[str], **options: Any
) -> QuadraticFits:
    """Return the fits of a language model's MLPs on what they see of a text, block by block."""
    host = open_host(path)
    n_ctx = min(ConversionRecipe().n_ctx, host.n_ctx)
    mixture = Mixture([text.load()], tokenizer_at(host), n_ctx, options["seed"])
    check_enough(mixture.tokens, tokens, "what layers see")
    views = {site.name: site.view for site in host.sites}
    about = {"format": type(host.module).__name__, "read": "the MLPs, on text"}
    model = LoadedModel(None, str(host.source), host.sha256, provenance=about, views=views)
    walk, found = Walk(host, mixture.texts(0, max(1, tokens // n_ctx)), 8), []
    for block in range(len(host.blocks)):
        here = [s for s in host.sites if s.block == block and s.name in (layers or views)]
        for name, rows in walk.inputs(here).items():
            found.append(fit_layers_of(model, rows, layers=[name], **options))
        walk.advance()
    if not found:  # says which layers there are
        return fit_layers_of(model, layers=layers, **options)
    return structs.replace(found[0], fits=tuple(one.fits[0] for one in found))
