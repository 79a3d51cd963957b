"""The checks before an MLP conversion of a language model, and the document it ends in."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from msgspec import structs
from torch import Tensor

from bilens.api.provenance import describe_run
from bilens.api.tracing import read_converted
from bilens.base import silent
from bilens.base.errors import DataError, NonFiniteError, UsageError
from bilens.base.files import write_file, write_files
from bilens.base.model_card import card_file
from bilens.base.option_rules import TrackerName
from bilens.findings.conversion_losses import average_losses, losses, samples
from bilens.interp.traced_layer import top_contexts
from bilens.io.converted_folder import save_converted
from bilens.io.formats.safetensors_folder import folder_sha256
from bilens.io.host import Host, Site, copy_companions, tokenizer_at
from bilens.records import bilinear_conversion as records
from bilens.records.base import read_document, to_json
from bilens.records.common import LayeredModel, Source, TextOrigin
from bilens.report.markdown import escaped
from bilens.report.sections.conversion import summary
from bilens.report.text import load_catalogue
from bilens.train.device import device_of
from bilens.train.distillation import has_experts, text_losses, token_table
from bilens.train.layer_fit import ConversionRecipe
from bilens.train.layer_inputs import Mixture, Rows
from bilens.train.loop import CHECKPOINTS
from bilens.train.processes import ALONE, Processes
from bilens.train.run_folder import CONVERSION_NAME
from bilens.train.trackers import Telling, Tracker

OF_LLAMA = (
    " `config.json` says `linear` as its activation: **a program that hard-codes another one runs "
    "a different model**, without an error."
)
KNOWN_TEXTS = 4  # of a domain, that tell whether the teacher knows it
CHANCE = 0.9  # of log(vocabulary): from this loss on the model does not know the text


def blocks_to_convert(teacher: Host, recipe: ConversionRecipe) -> list[int]:
    """Return the numbers of the blocks; refuse a recipe that does not suit the model."""
    blocks = range(len(teacher.blocks))
    if teacher.unit == "tokens" and not 2 <= recipe.n_ctx <= (most := teacher.n_ctx):
        raise UsageError(f"the model reads {most} tokens; choose such a --context-length.")
    chosen = [one for one in dict.fromkeys(recipe.layers or blocks) if one not in recipe.keep]
    if {*recipe.layers, *recipe.keep} - {*blocks}:
        raise UsageError(f"the model has the blocks 0 to {blocks[-1]}: name some of these.")
    if len(chosen) <= recipe.keep_worst:
        raise UsageError(
            f"of {len(chosen)} blocks to convert {recipe.keep_worst} more are kept: convert one or "
            "more (--layers, --keep, --keep-worst)."
        )
    if all(site.view.exact for site in teacher.sites if site.block in chosen):
        raise UsageError(f"{teacher.source} is exact there already: there is nothing to convert.")
    return chosen


def check_place(folder: Path, source: Path) -> None:
    """Refuse to write over the model."""
    read = source.resolve()
    if source.exists() and folder.resolve() in (read, *read.parents):
        raise UsageError(f"{folder} holds the model that is read: choose another folder.")


def check_budget(recipe: ConversionRecipe, given: int, texts_left: int) -> None:
    """Refuse a budget that the layers use up."""
    if not (recipe.minutes or "distillation" in recipe.skip or texts_left):
        raise UsageError(
            f"--tokens {recipe.tokens:,} is the budget of all stages, and the layers take "
            f"{given:,} of it: choose more, or fewer --layer-tokens."
        )


def check_layer_tokens(sites: Sequence[Site], recipe: ConversionRecipe, given: int) -> None:
    """Refuse fewer tokens than the widest layer has unknowns; experts see some of them."""
    for site in sites if "fit" not in recipe.skip else ():
        products = site.view.sizes.d_hidden * recipe.hidden_multiplier
        needed = products + 1 + recipe.linear_skip * site.view.sizes.d_in
        if site.expert is None and given < needed:
            raise DataError(
                f"{site.name} of {products:,} products needs {needed:,} tokens or more, and gets "
                f"{given:,}: raise --layer-tokens, and --tokens with it."
            )


def check_known(teacher: Host, mixture: Mixture | Rows) -> None:
    """Refuse a broken teacher, and text on which it is hardly better than a guess."""
    for name, texts in mixture.held_out.items():
        with torch.no_grad():
            found = teacher.logits(texts[:1].to(device_of(teacher.module)))
        if not bool(found.isfinite().all()):
            raise NonFiniteError(f"the model gives NaN or infinity on {name}: repair its weights.")
        if teacher.gives != "next tokens":
            continue
        guess = math.log(teacher.config.vocab_size)
        loss = float(text_losses(teacher, texts[:KNOWN_TEXTS]).mean())
        if loss > CHANCE * guess:
            raise DataError(
                f"{name}: the teacher's loss is {loss:.2f} nats per token, a guess has "
                f"{guess:.2f}. It does not know this text: give text of the kind and language "
                "that it was made for."
            )


LINE_TOKENS, LINE_TEXTS = 2048, 16  # of held-out text, on the way; at most
GAIN_TEXTS = 8  # held-out texts, on which it is checked what directions cause
BFLOAT16_LIMIT = 0.01  # nats that storage in bfloat16 may cost

Report = Callable[[str, int, int, str], None]  # stage, done, of how many, what there is to say


@dataclass(eq=False)
class Converted:
    """A conversion in a folder, as far as it has come."""

    teacher: Host
    mixture: Mixture | Rows
    recipe: ConversionRecipe
    folder: Path
    report: Report
    say: Callable[[str], None]
    group: Processes = field(default=ALONE, kw_only=True)
    tracker: Sequence[TrackerName | Tracker] = field(default=(), kw_only=True)
    telling: Telling = field(init=False)

    def __post_init__(self) -> None:
        recipe, teacher, mixture = self.recipe, self.teacher, self.mixture
        self.group.check_shares(recipe.batch_size)
        if self.group.shard and (has_experts(teacher) or recipe.optimizer == "muon"):
            what = "what Muon trains" if recipe.optimizer == "muon" else "experts, which may idle"
            raise UsageError(f"--shard does not divide {what}: leave it out.")
        if not self.group.first:
            self.report = self.say = silent
        # what it gives decides units and losses; of layers in a row also whether there are labels
        self.how = {**recipe.to_dict(), "teacher_sha256": teacher.sha256, "gives": teacher.gives}
        self.how["activations"] = sorted({str(site.view.activation) for site in teacher.sites})
        self.about = {"recipe": self.how, "data": mixture.fingerprint}  # of a run that is resumed
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

    @property
    def converted(self) -> dict[str, Site]:
        return {site.name: site for site in self.teacher.sites if site.block in self.chosen}

    def written(
        self, layers: list[dict[str, Any]], costs: dict[str, Any], before: dict[str, Any]
    ) -> dict[str, Any]:
        """Write the result, and return what came of it."""
        result, recipe = self.folder / CONVERSION_NAME, self.recipe
        loaded_by, notes, stored = self.save(), [*self.teacher.notes], None
        made = {"teacher": str(self.teacher.source), "recipe": json.dumps(self.how)}
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
        record = read_document(records.Conversion, found)
        write_files({self.folder / name: data for name, data in card_of(record).items()})
        document = to_json(record)
        write_file(result, (json.dumps(document, indent=1) + "\n").encode())
        return document

    def save(self) -> str:
        """Write the model into the folder; return what loads it."""
        loaded_by = save_converted(self.student, self.folder)
        copy_companions(self.teacher, self.folder)
        return loaded_by

    def looked_at(self) -> dict[str, Any]:
        """Measure losses of the student, show where they are, and read a few of its layers."""
        tables, student = self.tables(), self.student
        bill, domains = self.bill(tables), list[records.DomainLoss]()
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
            parts = {
                "losses": tuple(losses(texts, table, tokenizer)),
                "worst": top_contexts(texts[:, 1:], table[..., 2], 0, tokenizer.token, num=6),
                "samples": tuple(samples(self.teacher, student, texts, tokenizer)),
            }
            domains.append(structs.replace(one, **parts))
            self.report("text", len(domains), len(tables), one.name)
        learnt = [*self.mixture.held_out.values()][: len(self.mixture.domains)]
        held = [texts[: max(1, GAIN_TEXTS // len(learnt))] for texts in learnt]
        gain = [*read_converted(student, exact, tokenizer, torch.cat(held), self.recipe.seed)]
        names, mixture = ", ".join(tables), self.mixture
        data = TextOrigin(names, "given by --text", mixture.tokens, mixture.fingerprint)
        return {**sizes, "domains": domains, "gain": gain, "data": data}

    def curve(self) -> list[records.DistillationPoint]:
        """Return the lines of the distillation; a run that went on has some of them twice."""
        paths = [self.work / f"{name}.jsonl" for name in ("distillation", "unfrozen")]
        texts = [one for path in paths if path.exists() for one in path.read_text().splitlines()]
        found, batch = dict[int, records.DistillationPoint](), self.recipe.batch_size
        for one in map(json.loads, texts):  # of an earlier release, without the number of tokens
            seen = one.get("tokens", (self.layer_texts + one["step"] * batch) * self.recipe.n_ctx)
            found[seen] = records.DistillationPoint(seen, one["loss_added"], one["held_out_kl"])
        return [*found.values()]

    def tables(self, most: int | None = None) -> dict[str, Tensor]:
        """Run both models on the held-out text of each domain, or on its start."""
        tokens = self.recipe.measured_tokens
        count = max(1, min(tokens, most or tokens) // self.recipe.n_ctx)
        texts = {name: one[:count] for name, one in self.mixture.held_out.items()}
        return {n: token_table(self.teacher, self.student, one) for n, one in texts.items()}

    def bill(self, tables: dict[str, Tensor]) -> list[records.DomainLoss]:
        """Measure losses of the student on each domain, those that are learnt from first."""
        learnt, found = len(self.mixture.domains), list[records.DomainLoss]()
        for name, table in tables.items():
            found.append(one := average_losses(name, table, fitted=len(found) < learnt))
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


def card_of(record: records.Conversion) -> dict[str, bytes]:
    """Return the card of a converted model, with what it cost; none where people wrote one."""
    folder, made, is_llama = Path(record.folder), len(record.layers), "Auto" in record.loaded_by
    task = {"type": "text-generation" if record.unit == "nats per token" else "other"}
    data = [{"type": one.name, "name": one.name} for one in record.domains]
    loss = {"type": "loss", "name": f"loss on held-out inputs, {record.unit}"}
    scores = [{"metrics": [{**loss, "value": one.loss}], "task": task} for one in record.domains]
    found = [{**one, "dataset": place} for one, place in zip(scores, data, strict=True)]
    words = {
        "library": "transformers" if is_llama else "bilens",
        "scores": f"model-index: {json.dumps([{'name': folder.name, 'results': found}])}\n",
        "kind": record.model.kind,
        "made": made,
        "all": made + len(record.kept),
        "loaded_by": record.loaded_by,
        "warning": OF_LLAMA if is_llama else "",
        "costs": "\n".join(f"* {escaped(line)}" for line in summary(load_catalogue("en"), record)),
    }
    sizes = {"parameters": record.num_parameters, "read exactly": record.exact_parameters}
    sha256, made_by = record.source.weights_sha256, record.source.provenance
    return card_file(folder, "conversion", sha256, sizes, made_by, words)
