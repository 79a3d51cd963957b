"""Two models beside each other: rule by rule, layer by layer, eigenvector by eigenvector."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from msgspec import structs

from bilens import EigenDecomposition, EigenvectorMatch, match_eigenvectors
from bilens.algebra import Group
from bilens.api import (
    Alignment,
    align_models,
    is_of_columns,
    is_one_exact_layer,
    layer_changes,
    whole_difference,
)
from bilens.base import silent
from bilens.base.errors import BilensError, NonFiniteError, UsageError
from bilens.findings import (
    CLOSE,
    OTHER_STREAM,
    FittedLayer,
    changes,
    compare_layers,
    fit_layer,
    other_kind,
    outcome,
    weight_changes,
)
from bilens.nn import LayerView
from bilens.records import Difference, LayerDifference, Measured, PastAudit
from bilens_explorer.endpoint import Arguments, Endpoint
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import ToldError, without_paths
from bilens_explorer.open_models import OpenModel
from bilens_explorer.records.model_comparison import (
    ComparedRule,
    EigenvectorPairs,
    MatchedSide,
    ModelComparison,
    VectorPair,
)
from bilens_explorer.records.models import Key, ModelPage
from bilens_explorer.spectra import LayerName, OutputText, OutputView, held_outputs, viewed_vectors
from bilens_explorer.walk import find_views

LARGEST = 1 << 24  # parameters of a model whose weights a page compares
LARGEST_SEEN = 1 << 20  # of one whose own page says what changed: about a second
WORK = 2_000_000_000  # products in comparing maps: some twenty seconds
MATCHED = 12  # leading eigenvectors
HELD_MODELS = 4  # whose pairs are compared in a one-file export


def model_since(served: ServedFolder, key: Key) -> ModelPage:
    """One model, with what changed since its audit where what was audited lies here, too."""
    page = served.looked_at(key)
    if not page.before:
        return page
    with suppress(BilensError):
        now, then = served.opened(key), served.opened(page.before)
        if all(parameters(one) <= LARGEST_SEEN for one in (now, then)):

            def differ() -> Difference:
                return whole_difference(align_models(now.model, then.model), (), None, silent)

            found = now.once(("since", then.name, then.state), differ)
            return structs.replace(page, since=found.whole)
    return page


def parameters(one: OpenModel) -> int:
    return sum(math.prod(tensor.shape) for tensor in one.model.tensors.values())


@dataclass(frozen=True)
class Changed:
    """The difference of the weights of two models, or why it is not known."""

    difference: Difference | None = None
    left_out: int = 0  # layers
    r_squared: float | None = None  # the least of layers that are compared
    why: str = ""


def comparison(served: ServedFolder, a: Key, b: Key) -> ModelComparison:
    """Two models: rule by rule as they were audited last, and what changed in the weights."""
    first, second = served.model(a), served.model(b)
    before, now = first.model.answered, second.model.answered
    found = compare_weights(served, first, second)
    rules: tuple[ComparedRule, ...] = ()
    if before is not None and now is not None:
        rules = compared_rules(before, judged(first, before), now, judged(second, now))
    return ModelComparison(
        a=first.model,
        b=second.model,
        rules=rules,
        difference=found.difference,
        left_out=found.left_out,
        r_squared=found.r_squared,
        why=found.why,
    )


def judged(page: ModelPage, audit: PastAudit) -> dict[str, Measured]:
    return {one.rule: one for one in page.measured if one.audit == audit.number}


def compared_rules(
    a: PastAudit, before: Mapping[str, Measured], b: PastAudit, now: Mapping[str, Measured]
) -> tuple[ComparedRule, ...]:
    """Return all rules of both audits, as they ended also as conditions: first what is worse."""
    moved = {one.rule: one.direction for one in changes(a, before, b, now)}

    def ended(audit: PastAudit, judged: Mapping[str, Measured], rule: str) -> Measured | None:
        one = judged.get(rule)
        return one and structs.replace(one, outcome=outcome(audit, rule, one))

    return tuple(
        ComparedRule(rule, ended(a, before, rule), ended(b, now, rule), moved.get(rule))
        for rule in dict.fromkeys([*moved, *before, *now])
    )


def compare_weights(served: ServedFolder, first: ModelPage, second: ModelPage) -> Changed:
    """Compare the weights of two models; where that cannot be, say why."""
    try:
        for page in (first, second):
            if not page.model.there:
                return Changed(why=f"{page.model.name} is no longer in the folder")
        a, b = served.opened(first.model.id), served.opened(second.model.id)
        for one in (a, b):
            if (count := parameters(one)) > LARGEST:
                told = f"{one.name} has {count:,} parameters, too many for a page: `bilens audit"
                return Changed(why=f"{told} {b.name} --baseline {a.name}` compares them")
        return b.once(("compared", a.name, a.state), lambda: difference_of(a, b), slow=True)
    except BilensError as error:
        return Changed(why=without_paths(str(error), served.folder))


def difference_of(a: OpenModel, b: OpenModel) -> Changed:
    alignment = align_models(b.model, a.model)
    layers, left_out, r_squared = changed_layers(alignment)
    found = whole_difference(alignment, layers, None, silent)
    source = structs.replace(found.baseline, path=a.name)
    return Changed(structs.replace(found, baseline=source), left_out, r_squared)


def changed_layers(alignment: Alignment) -> tuple[tuple[LayerDifference, ...], int, float | None]:
    """Compare the layers of both; also how many take too long for `WORK`, and the least R²."""
    model, refused = alignment.model, alignment.refused
    if is_of_columns(model) and is_of_columns(alignment.baseline):
        return layer_changes(alignment, 0, standard=True), 0, None
    found, work, left_out, scores = list[LayerDifference](), 0, 0, list[float]()
    for name, view in model.layers.items():
        before = alignment.before(name)
        why_not = refused.get(name)
        if before is None or (why_not := why_not or other_kind(before, view)):
            found.append(LayerDifference(name, False, why_not))
            continue
        sizes = view.sizes
        outer = sizes.d_in + sizes.d_out
        own = sizes.d_in**3 + sizes.d_out**3 + sizes.d_hidden**2 * outer
        if work + own > WORK:
            left_out += 1
            continue
        work, both = work + own, (fitted(before), fitted(view))
        turn = alignment.turn if view.reads == "residual stream" else None
        one = compare_layers(name, *both, vectors=is_one_exact_layer(model), turn=turn)
        found.append(one)
        if not (view.exact or one.identical or one.refused):
            scores += [each.fit.r_squared.quadratic.overall for each in both if each]
    alone = sorted(refused.keys() - model.layers.keys())
    found += [LayerDifference(name, False, refused[name]) for name in alone]
    return tuple(found), left_out, min(scores, default=None)


def fitted(view: LayerView) -> FittedLayer | None:
    with suppress(NonFiniteError):  # the layer says so itself
        return fit_layer(view, seed=0)
    return None


def eigenvector_pairs(
    served: ServedFolder, a: Key, b: Key, layer: LayerName, output: OutputText = "0"
) -> EigenvectorPairs:
    """The leading eigenvectors of one output of a layer of two models, matched."""
    one, other = (OutputView.named(served, key, layer, output) for key in (a, b))
    what = "matched", one.opened.name, one.opened.state, one.layer, one.text, one.fit, other.fit
    return other.opened.once(what, lambda: paired(one, other), slow=True)


def paired(a: OutputView, b: OutputView) -> EigenvectorPairs:
    alignment = align_models(a.opened.model, b.opened.model)
    if why_not := alignment.why_not(a.layer) or other_coordinates(a, b, alignment):
        names = {"model": a.opened.name, "baseline": b.opened.name}
        raise ToldError("not_compared", **names, why=why_not)
    b = align_output(a, b, alignment)
    first = a.pairs()[0]
    second = replace(b.pairs()[0], basis=first.basis)  # what they read is aligned
    k, match = matched(first, second)
    cosines = (first.eigenvectors[:k] @ second.eigenvectors[:k].T).abs().clamp(max=1)
    found = sorted(zip(match.pairs, match.cosines.tolist(), strict=True))
    return EigenvectorPairs(
        a=matched_side(a, first, k, a.text),
        b=matched_side(b, second, k, own_output(a, alignment)),
        cosines=tuple(tuple(round(cosine, 5) for cosine in row) for row in cosines.tolist()),
        pairs=tuple(VectorPair(ranks(one), ranks(other), cos) for (one, other), cos in found),
        score=match.score,
        chance=match.chance,
        p_value=match.p_value,
    )


def align_output(a: OutputView, b: OutputView, alignment: Alignment) -> OutputView:
    """Return the same output of the second model, read as a function of the first one's inputs."""
    view = alignment.before(a.layer)
    if view is None or a.view.reads == "residual stream":  # whose coordinates are the same
        return b
    first, other = a.opened, b.opened
    model = replace(
        other.model,
        module=None,
        views={a.layer: view},
        input_names=first.model.input_names,
        output_names=first.model.output_names,
    )
    state = other.state + first.state
    return OutputView(OpenModel(other.name, model, state, other.results), a.layer, a.text, b.fit)


def other_coordinates(a: OutputView, b: OutputView, alignment: Alignment) -> str | None:
    """Return why vectors of two layers have no angle: other units, or other residual streams."""
    axis = alignment.inputs if a.view.reads == "inputs" else None
    if axis is not None and any(factor != 1 for factor in axis.factors):
        return f"their inputs are in other units, {', '.join(axis.units)}"
    if a.view.reads != "residual stream":
        return None
    before, after = (one.view.weights(torch.float64) for one in (a, b))
    turn = "same" if weight_changes(before, after)[1] <= CLOSE else alignment.turn()
    if isinstance(turn, torch.Tensor):
        return "their residual streams are turned: `bilens audit --baseline` turns them back"
    return None if turn == "same" else OTHER_STREAM


def own_output(a: OutputView, alignment: Alignment) -> str:
    """Return an output of the first model as the second one numbers it."""
    places = {} if alignment.outputs is None else dict(alignment.outputs.pairs)
    if a.view.gives == "neurons":
        order = alignment.neuron_orders.get(a.layer)
        places = {} if order is None else dict(enumerate(order.tolist()))
    named = {str(mine): str(theirs) for mine, theirs in places.items()}
    return "~".join(named.get(part, part) for part in a.text.split("~"))


def matched_side(
    output: OutputView, pairs: EigenDecomposition, k: int, own_text: str
) -> MatchedSide:
    found, vectors = output.decomposed().record, viewed_vectors(output, pairs, [*range(k)])
    values = tuple(pairs.eigenvalues[:k].tolist())
    return MatchedSide(own_text, found.reading, output.approximation, values, vectors)


def ranks(group: Group) -> tuple[int, ...]:
    return tuple(at + 1 for at in group)


def matched(first: EigenDecomposition, second: EigenDecomposition) -> tuple[int, EigenvectorMatch]:
    """Match as many leading eigenvectors as there are; fewer where a number cuts equal ones."""
    most = min(MATCHED, len(first.eigenvalues), len(second.eigenvalues))
    for k in range(most, 1, -1):
        try:
            return k, match_eigenvectors(first, second, k=k)
        except UsageError:
            continue
    return 1, match_eigenvectors(first, second, k=1)


def held_pairs(served: ServedFolder) -> list[tuple[str, str]]:
    """Return the pairs of models that a one-file export compares; none of many models.

    What is gone, and an autoencoder, has no weights to compare.
    """
    found = sorted(
        key for key, path in served.last_walk().models.items() if find_views(served.folder, path)
    )
    return [*combinations(found, 2)] if len(found) <= HELD_MODELS else []


def held_vectors(served: ServedFolder) -> Iterator[Arguments]:
    outputs = [(one["key"], one["layer"], one["output"]) for one in held_outputs(served)]
    for a, b in held_pairs(served):
        for key, layer, output in outputs:
            if key == a and (b, layer, output) in outputs:
                yield {"a": a, "b": b, "layer": layer, "output": output}


ENDPOINTS = (
    Endpoint("/compare", comparison, slow="background"),
    Endpoint("/compare/eigenvectors", eigenvector_pairs, held=held_vectors, slow="view"),
)
