"""A model made bilinear: stages in a folder, resumable to the same bits on the CPU."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from msgspec import structs
from torch import Tensor, nn

from bilens.api.conversion_checks import (
    blocks_to_convert,
    check_budget,
    check_known,
    check_layer_tokens,
    check_place,
)
from bilens.api.provenance import describe_run
from bilens.api.trace import read_converted
from bilens.api.trace_records import latent_reading
from bilens.base import silent
from bilens.base.errors import InterruptedRunError, UsageError
from bilens.base.files import read_json, write_file
from bilens.findings.conversion import error_of, losses, measured, samples
from bilens.interp.traced_layer import top_contexts
from bilens.io.converted_folder import open_model, save_converted
from bilens.io.formats.safetensors_folder import folder_sha256
from bilens.io.host import Host, Site, copy_companions, tokenizer_at
from bilens.records import conversion as records
from bilens.records.base import json_text, read_document, to_json
from bilens.records.common import Source, TextOrigin
from bilens.records.layer_audit import LayeredModel
from bilens.records.trace import TokenEnds
from bilens.train.corpus import CorpusOptions
from bilens.train.distillation import (
    distil,
    has_experts,
    seconds_of_a_step,
    swap_in_losses,
    text_losses,
    token_table,
)
from bilens.train.layer_fit import ConversionRecipe, convert_layers
from bilens.train.layer_inputs import Mixture, Passes, Rows, check_enough
from bilens.train.loop import CHECKPOINTS
from bilens.train.processes import ALONE, Processes, together
from bilens.train.recipe import Device
from bilens.train.run_folder import (
    CONVERSION_NAME,
    RUN_NAME,
    check_folder,
    interruptible,
    written_by_first,
)

LINE_TOKENS, LINE_TEXTS = 2048, 16  # of held-out text, on the way; at most
GAIN_TEXTS = 8  # held-out texts, on which it is checked what directions cause
STAGE_TOKENS = 8192  # of each domain, that a stage is measured on before the last one
BFLOAT16_LIMIT = 0.01  # nats that storage in bfloat16 may cost
UNFROZEN_SHARE, UNFROZEN_RATE = 0.25, 0.1  # of the steps and of the rate, for all weights

Report = Callable[[str, int, int, str], None]  # stage, done, of how many, what there is to say


def convert_to_bilinear(
    model: Path,
    texts: Sequence[CorpusOptions],
    folder: Path,
    recipe: ConversionRecipe,
    *,
    measured: Sequence[CorpusOptions] = (),
    resume: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    shard: bool = False,
    report: Report = silent,
    say: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Replace the MLPs of a language model by bilinear ones; return what came of it, as JSON.

    `model` is a folder of Hugging Face, a .gguf file or a run of `bilens train language`; each
    corpus is a domain, and its held-out documents are only measured on, as all of the `measured`.
    """
    if not texts:
        more = "give some with --text, or rows with --data to a model that reads no text."
        raise UsageError(f"a conversion to bilinear learns from text: {more}")
    with together(device, shard) as group:
        host = open_model(model)
        host.module.to(group.device)
        recipe = recipe.resolved(group.device)
        learnt, others = ([one.load(report=say) for one in part] for part in (texts, measured))
        mixture = Mixture(learnt, tokenizer_at(host), recipe.n_ctx, recipe.seed, others)
        run = Conversion(host, mixture, recipe, folder, report, say, group=group)
        return run.start(resume, overwrite, "text")


@dataclass(eq=False)
class Conversion:
    """A conversion in a folder: `run` takes it through its stages."""

    teacher: Host
    mixture: Mixture | Rows
    recipe: ConversionRecipe
    folder: Path
    report: Report
    say: Callable[[str], None]
    group: Processes = field(default=ALONE, kw_only=True)

    def __post_init__(self) -> None:
        recipe, teacher, mixture = self.recipe, self.teacher, self.mixture
        self.group.check_shares(recipe.batch_size)
        if self.group.shard and (has_experts(teacher) or recipe.optimizer == "muon"):
            what = "what Muon trains" if recipe.optimizer == "muon" else "experts, which may idle"
            raise UsageError(f"--shard does not divide {what}: leave it out.")
        if not self.group.first:
            self.report = self.say = silent
        how = {**recipe.to_dict(), "teacher_sha256": teacher.sha256}
        self.about = {"recipe": how, "data": mixture.fingerprint}  # of the run that is resumed
        self.work = self.folder / CHECKPOINTS
        self.chosen = blocks_to_convert(teacher, recipe)
        self.layer_texts = max(1, recipe.layer_tokens // recipe.n_ctx)
        learnt = [*mixture.held_out.values()][: len(mixture.domains)]
        most = LINE_TEXTS if teacher.unit == "tokens" else LINE_TOKENS
        count = max(1, min(LINE_TOKENS // recipe.n_ctx, most) // len(learnt))
        self.line_texts = torch.cat([texts[:count] for texts in learnt])
        # layers are judged on others, which are measured last
        self.judged_texts = torch.cat([texts[-count:] for texts in learnt])
        self.judged = len(self.line_texts)  # texts more, that choose the blocks to keep
        nats = f"nats per {teacher.unit[:-1]}"
        self.unit = "squared error" if teacher.gives == "numbers" else nats  # of losses
        self.student = teacher.twin(share=not recipe.unfreeze)
        self.seconds: dict[str, float] = {}
        self.of_a_pass = 0  # texts of the distillation

    def start(self, resume: bool, overwrite: bool, data_noun: str = "data") -> dict[str, Any]:
        usual = type(self.recipe)().to_dict()

        def check() -> None:
            check_place(self.folder, self.teacher.source)
            check_folder(self.folder, self.about, resume, overwrite, data_noun, usual)

        self.group.on_first(check)
        for note in self.teacher.notes:
            self.say(note)
        with written_by_first(self.folder, self.group, resume):
            try:
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
        if "distillation" not in recipe.skip:
            self.distil()
        return self.group.on_first(lambda: self.written(layers, costs, before))

    def written(
        self, layers: list[dict[str, Any]], costs: dict[str, Any], before: dict[str, Any]
    ) -> dict[str, Any]:
        """Write the result, and return what came of it."""
        result, recipe = self.folder / CONVERSION_NAME, self.recipe
        loaded_by, notes, stored = self.save(), [*self.teacher.notes], None
        made = {"teacher": str(self.teacher.source), "recipe": json.dumps(self.about["recipe"])}
        if self.teacher.unit == "tokens":
            stored = self.bfloat16_added()
            too_much = self.teacher.gives != "numbers" and stored > BFLOAT16_LIMIT
            then = ": keep float32." if too_much else "."
            notes.append(f"Storage in bfloat16 adds {stored:+.4f} {self.unit}{then}")
        used = (self.judged + self.layer_texts + self.of_a_pass) * recipe.n_ctx
        if used > (known := self.mixture.tokens):
            again = f"a domain begins again after {known:,}, also with what chose blocks to keep."
            notes.append(f"{used:,} {self.teacher.unit} were asked for: {again}")
        left = {one["name"] for one in layers if "unreached" in one}
        notes += [f"Too few tokens reach {name}: it stays as it was." for name in sorted(left)]
        fitted = [one for one in layers if one["name"] in self.converted.keys() - left]
        dead = [one["name"] for one in fitted if "r_squared" not in one]
        notes += [f"The output of {name} never varies." for name in dead]
        names = {one["name"] for one in fitted}
        found = {
            "schema_version": 1,
            "kind": "bilinear conversion",
            "unit": self.unit,
            "folder": str(self.folder),
            "loaded_by": loaded_by,
            "layers": fitted,
            "kept": [one.name for one in self.teacher.sites if one.name not in names],
            "swap_in_costs": {block: cost for block, (cost, _) in costs.items()},
            "swap_in_errors": {block: error for block, (_, error) in costs.items()},
            "after_layers": before["domains"],
            "curve": self.curve(),
            "line_tokens": token_table(self.teacher, self.student, self.line_texts)[..., 0].numel(),
            **self.looked_at(),
            "bfloat16_added": stored,
            "seconds": self.seconds,
            "notes": notes,
            "source": Source(str(self.folder), folder_sha256(self.folder), made),
            "reproduce": describe_run(None, recipe.seed),
        }
        document = to_json(read_document(records.Conversion, found))
        write_file(result, (json.dumps(document, indent=1) + "\n").encode())
        return document

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what is measured on the way: once, and kept for a run that is resumed."""
        path = self.work / f"{name}.json"

        def kept() -> Any:
            if not path.exists():
                write_file(path, json_text(make()).encode())
            return read_json(path)

        return self.group.on_first(kept)

    def save(self) -> str:
        """Write the model into the folder; return what loads it."""
        loaded_by = save_converted(self.student, self.folder)
        copy_companions(self.teacher, self.folder)
        return loaded_by

    def looked_at(self) -> dict[str, Any]:
        """Return what the student loses, where, and what can be read of it."""
        tables, student = self.tables(), self.student
        bill, domains = self.bill(tables), list[records.Measured]()
        sites = [*self.converted.values()]  # but for experts that kept their gate
        exact = [one for one in sites if getattr(student.at(one), "gate", None) is None]
        modules = map(student.at, exact), [student.module]
        read, every = (sum(x.numel() for one in each for x in one.parameters()) for each in modules)
        model = LayeredModel(type(student.module).__name__, len(self.teacher.sites), "float32")
        sizes = {"model": model, "num_parameters": every, "exact_parameters": read}
        if self.teacher.gives != "next tokens":
            return {**sizes, "domains": bill}
        tokenizer = tokenizer_at(self.teacher)
        for one in bill:
            table = tables[one.name]
            texts = self.mixture.held_out[one.name][: len(table)]
            worst = top_contexts(texts[:, 1:], table[..., 2], 0, num=6)
            parts = {
                "losses": tuple(losses(texts, table, tokenizer)),
                "worst": latent_reading(worst, TokenEnds((), ()), tokenizer.token),
                "samples": tuple(samples(self.teacher, student, texts, tokenizer)),
            }
            domains.append(structs.replace(one, **parts))
            self.report("text", len(domains), len(tables), one.name)
        learnt = [*self.mixture.held_out.values()][: len(self.mixture.domains)]
        held = [texts[: max(1, GAIN_TEXTS // len(learnt))] for texts in learnt]
        gain = [*read_converted(student, exact, tokenizer, torch.cat(held), self.recipe.seed)]
        said = ", ".join(tables), "given by --text", self.mixture.tokens, self.mixture.fingerprint
        return {**sizes, "domains": domains, "gain": gain, "data": TextOrigin(*said)}

    def curve(self) -> list[records.CurvePoint]:
        """Return the lines of the distillation; a run that went on has some of them twice."""
        paths = [self.work / f"{name}.jsonl" for name in ("distillation", "unfrozen")]
        texts = [one for path in paths if path.exists() for one in path.read_text().splitlines()]
        found, batch = dict[int, records.CurvePoint](), self.recipe.batch_size
        for one in map(json.loads, texts):  # of an earlier release, without the number of tokens
            seen = one.get("tokens", (self.layer_texts + one["step"] * batch) * self.recipe.n_ctx)
            found[seen] = records.CurvePoint(seen, one["loss_added"], one["held_out_kl"])
        return [*found.values()]

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

    @property
    def converted(self) -> dict[str, Site]:
        return {site.name: site for site in self.teacher.sites if site.block in self.chosen}

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

    def tables(self, most: int | None = None) -> dict[str, Tensor]:
        """Return what both models predict of the held-out text of each domain, or of its start."""
        tokens = self.recipe.measured_tokens
        count = max(1, min(tokens, most or tokens) // self.recipe.n_ctx)
        texts = {name: one[:count] for name, one in self.mixture.held_out.items()}
        return {n: token_table(self.teacher, self.student, one) for n, one in texts.items()}

    def bill(self, tables: dict[str, Tensor]) -> list[records.Measured]:
        """Return what the student loses on each domain, those that are learnt from first."""
        learnt, found = len(self.mixture.domains), list[records.Measured]()
        for name, table in tables.items():
            found.append(one := measured(name, table, fitted=len(found) < learnt))
            self.say(f"{name}: {one.loss_added:+.4f} ± {one.error:.4f} {self.unit} so far.")
        return found

    def bfloat16_added(self) -> float:
        rounded = self.student.twin(share=False)
        for parameter in rounded.module.requires_grad_(False).parameters():
            parameter.copy_(parameter.bfloat16())
        exact, stored = (
            text_losses(x, self.line_texts, self.student) for x in (self.student, rounded)
        )
        return float((stored - exact).mean())
