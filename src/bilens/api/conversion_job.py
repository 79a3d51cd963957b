"""A model made bilinear: stages in a folder, resumable to the same bits on the CPU."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from bilens.api.converted import (
    Converted,
    check_budget,
    check_known,
    check_layer_tokens,
    check_place,
)
from bilens.api.training_options import ConvertTextModelOptions
from bilens.base import silent
from bilens.base.errors import InterruptedRunError, UsageError
from bilens.base.files import read_json, write_file
from bilens.base.keyword_options import takes_options
from bilens.findings.conversion_losses import error_of
from bilens.io.converted_folder import open_model
from bilens.io.host import tokenizer_at
from bilens.records import bilinear_conversion as records
from bilens.records.base import json_text, read_document, to_json
from bilens.train.corpus import CorpusOptions
from bilens.train.distillation import distil, seconds_of_a_step, swap_in_losses, text_losses
from bilens.train.layer_fit import ConversionRecipe, convert_layers
from bilens.train.layer_inputs import Mixture, Passes, check_enough
from bilens.train.processes import together
from bilens.train.run_folder import (
    CONVERSION_NAME,
    RUN_NAME,
    check_folder,
    interruptible,
    written_by_first,
)
from bilens.train.trackers import check_trackers, tracked

STAGE_TOKENS = 8192  # of each domain, that a stage is measured on before the last one
UNFROZEN_SHARE, UNFROZEN_RATE = 0.25, 0.1  # of the steps and of the rate, for all weights


@takes_options(ConvertTextModelOptions)
def convert_to_bilinear(
    model: Path, texts: Sequence[CorpusOptions], folder: Path, options: ConvertTextModelOptions
) -> dict[str, Any]:
    """Replace the MLPs of a language model by bilinear ones; return what came of it, as JSON.

    `model` is a folder of Hugging Face, a .gguf file or a run of `bilens train language`; each
    corpus is a domain, and its held-out documents are only measured on, as all of the `measured`.
    """
    if not texts:
        more = "give some with --text, or rows with --data to a model that reads no text."
        raise UsageError(f"a conversion to bilinear learns from text: {more}")
    options.recipe.check_stages(ConversionRecipe())
    report, say = options.report or silent, options.say or silent
    trackers = check_trackers(options.tracker)
    with together(options.device, options.shard) as group:
        host = open_model(model)
        host.module.to(group.device)
        recipe, measured = options.recipe.resolved(group.device), options.measured
        learnt, others = ([one.load(report=say) for one in part] for part in (texts, measured))
        mixture = Mixture(learnt, tokenizer_at(host), recipe.n_ctx, recipe.seed, others)
        told: dict[str, Any] = {"group": group, "tracker": trackers}
        run = ConversionJob(host, mixture, recipe, folder, report, say, **told)
        return run.start(options.resume, options.overwrite, "text")


class ConversionJob(Converted):
    """A conversion in a folder: `run` takes it through its stages."""

    def start(self, resume: bool, overwrite: bool, data_noun: str = "data") -> dict[str, Any]:
        def check() -> None:
            check_place(self.folder, self.teacher.source)
            check_folder(self.folder, self.about, resume, overwrite, data_noun)

        self.group.on_first(check)
        for note in self.teacher.notes:
            self.say(note)
        with written_by_first(self.folder, self.group, resume):
            trackers = self.tracker if self.group.first else ()
            try:
                with tracked(self.folder, trackers, self.how, self.say) as self.telling:
                    return self.run()
            except KeyboardInterrupt:
                if (self.folder / RUN_NAME).exists():
                    raise InterruptedRunError("Interrupted: go on with --resume.") from None
                raise

    def run(self) -> dict[str, Any]:
        result, recipe = self.folder / CONVERSION_NAME, self.recipe
        if result.exists():
            with suppress(UsageError):
                document = to_json(read_document(records.Conversion, read_json(result)))
                self.say(f"{self.folder} is finished: nothing is left to do.")
                return document
        given = self.layer_texts * recipe.n_ctx
        needed = self.judged * recipe.n_ctx + given
        check_enough(self.mixture.tokens, needed, "fitting the layers", self.teacher.unit)
        check_budget(recipe, given, self.texts_left())
        if self.teacher.unit == "tokens":
            check_layer_tokens([*self.converted.values()], recipe, given)
        check_known(self.teacher, self.mixture)
        about = json.dumps(self.about, indent=2).encode()
        self.group.on_first(lambda: write_file(self.folder / RUN_NAME, about))
        layers = self.group.on_first(self.fit_layers)
        if not self.group.first:  # which reads what the first one wrote
            self.fit_layers()
        costs = self.once("swap_in", self.swap_in_costs)
        worst = sorted(costs, key=lambda block: costs[block][0], reverse=True)
        self.keep([int(block) for block in worst[: recipe.keep_worst]])
        before = self.once(
            "after_layers", lambda: {"domains": self.bill(self.tables(STAGE_TOKENS))}
        )
        r_squared = {one["name"]: one.get("r_squared") for one in layers}
        nats = {block: cost for block, (cost, _) in costs.items()}
        self.telling.log(0, {"layers_r_squared": r_squared, "swap_in_cost": nats})
        if "distillation" not in recipe.skip:
            self.distil()
        return self.group.on_first(lambda: self.written(layers, costs, before))

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure something once, and keep it for a run that is resumed."""
        path = self.work / f"{name}.json"

        def read_or_make() -> Any:
            if not path.exists():
                write_file(path, json_text(make()).encode())
            return read_json(path)

        return self.group.on_first(read_or_make)

    def fit_layers(self) -> list[dict[str, Any]]:
        fit, began = self.mixture.texts(self.judged, self.layer_texts), time.monotonic()
        texts, layers = (fit, self.judged_texts), list[dict[str, Any]]()
        arguments = self.chosen, texts, self.recipe, self.work / "layers"
        total = sum(site.block in self.chosen for site in self.teacher.sites)
        with interruptible() as interrupted:
            for one in convert_layers(self.student, *arguments):
                layers.append(one)
                self.seconds["layers"] = time.monotonic() - began
                read = len(layers) * len(fit) * self.recipe.n_ctx
                speed = f"{read / max(self.seconds['layers'], 1e-9):,.0f} {self.teacher.unit}/s"
                text = f"{one['name']}, R² {one.get('r_squared')!s:.5}, {speed}"
                self.report("layers", len(layers), total, text)
                self.stop_if(interrupted.is_set(), one["name"])
        return layers

    def swap_in_costs(self) -> dict[str, Any]:
        """Return block → nats that it alone adds to the teacher, and the standard error of that.

        On text that nothing is fitted to and that is not measured either: it chooses blocks.
        """
        teacher, costs = self.teacher, dict[str, Any]()
        texts = self.mixture.texts(0, self.judged)
        before = text_losses(teacher, texts)
        for block, found in swap_in_losses(teacher, self.student, self.chosen, texts):
            added = found - before
            costs[str(block)] = cost, _ = float(added.mean()), error_of(added)
            self.report("swap-in cost", len(costs), len(self.chosen), f"{cost:+.4f}")
        return costs

    def keep(self, blocks: Sequence[int]) -> None:
        """Put the MLPs of the teacher back into blocks of the student."""
        original = self.teacher.twin(share=not self.recipe.unfreeze).module
        paths = {path for site in self.teacher.sites if site.block in blocks for path in site.paths}
        self.student.put({path: original.get_submodule(path) for path in paths})
        self.chosen = [block for block in self.chosen if block not in blocks]

    def distil(self) -> None:
        recipe, began = self.recipe, time.monotonic()
        sites = self.converted.values()
        ours = [one for site in sites for one in self.student.at(site).parameters()]
        steps = self.steps(ours)
        last = round(steps * UNFROZEN_SHARE) if recipe.unfreeze else 0
        slower = replace(recipe, learning_rate=recipe.learning_rate * UNFROZEN_RATE)
        everything = [*self.student.module.parameters()]
        parts = [("distillation", ours, steps - last, recipe)]
        parts += [("unfrozen", everything, last, slower)] if last else []
        self.of_a_pass = max(1, steps // recipe.passes) * recipe.batch_size
        first = self.judged + self.layer_texts
        passes, done = Passes(self.mixture, first, self.of_a_pass), 0
        for name, trained, count, how in parts:
            texts, folder = (passes, done, self.line_texts), self.work / name
            with interruptible() as interrupted:
                given = trained, texts, how, count, folder, None, self.group
                for line in distil(self.teacher, self.student, *given):
                    loss = "squared error" if self.teacher.gives == "numbers" else "KL"
                    text = f"{loss} {line['kl']:.4f}, held out {line['held_out_kl']:.4f}, loss "
                    speed = f"{line['tokens_per_second']:,.0f} {self.teacher.unit}/s"
                    text += f"{line['loss_added']:+.4f}, {speed}"
                    self.report(name, line["step"], count, text)
                    self.telling.log(done // recipe.batch_size + line["step"], line)
                    seen = done + line["step"] * recipe.batch_size + self.layer_texts
                    if self.group.first:
                        with (self.work / f"{name}.jsonl").open("a") as curve:
                            curve.write(json.dumps(line | {"tokens": seen * recipe.n_ctx}) + "\n")
                    stopped = self.group.any(interrupted.is_set())
                    self.stop_if(stopped, f"step {line['step']} of the {name}")
            done += count * recipe.batch_size
        self.seconds["distillation"] = time.monotonic() - began

    def steps(self, trained: Sequence[nn.Parameter]) -> int:
        """Return how many steps the budget has: of tokens, or of minutes as measured once."""
        recipe, path = self.recipe, self.work / "budget.json"
        if not recipe.minutes:
            return max(1, self.texts_left() // recipe.batch_size) * recipe.passes

        def measure() -> int:
            if not path.exists():
                texts = self.group.share(self.mixture.texts(0, recipe.batch_size))
                took = seconds_of_a_step(self.teacher, self.student, trained, texts, recipe)
                steps = max(1, int(60 * recipe.minutes / took))
                write_file(path, json.dumps({"steps": steps}).encode())
            return int(read_json(path)["steps"])

        return self.group.on_first(measure)

    def texts_left(self) -> int:
        return max(0, self.recipe.tokens // self.recipe.n_ctx - self.layer_texts)

    def stop_if(self, interrupted: bool, where: str) -> None:
        if interrupted:
            raise InterruptedRunError(f"Interrupted behind {where}: go on with --resume.")
