"""Guards against an option of a public function that changes nothing and is taken all the same.

Each option of each function is here: it is seen to count, or its row of the table of options is
tried in `test_options.py`, or a line says why it need not change an answer.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

import bilens as bl
from bilens.base.option_rules import RULES
from bilens.train.recipes import ImageRecipe, SAERecipe
from builders import randn
from polynomial.test_composition import two_layers
from polynomial.test_reading import transformer

# Who is told, where it is done, what is allowed: no answer hangs on it.
FREE = {
    *("progress", "say", "report", "on_cell", "on_epoch", "on_line", "command", "tracker"),
    *("device", "shard", "texts_at_once", "memory_limit", "block", "precision", "verify"),
    *("resume", "overwrite", "allow_pickle", "trust_pickle", "allow_download"),
    *("seed", "corpus_seed"),  # each record says it; of few things nothing is drawn
    "options",  # all the others as one record: base/test_keyword_options.py
}
MADE_BEFORE = {("certified_agreement", "eigs"), ("l2_radius", "spectra")}  # else they are made
# proves what a decomposition leaves open: test_truncation.py; beside a complete one it is checked
MADE_BEFORE |= {("truncation_error", "form")}
ROWS_OF_TABLE = {  # function → verbs of the table, whose options `test_options.py` tries
    "audit": ("audit", "data"),
    "certify_model": ("certify", "data"),
    "attack_model": ("attack", "data"),
    "quadratic_fit": ("quadratic fit",),
    "trace": ("trace",),
    "train_image": ("train image",),
    "layer_inputs": ("layer inputs",),
}
ELSEWHERE = {  # function → where its other options are tried, with files and models of their own
    "audit": ("data", "baseline", "fail_on"),  # cli/test_audit.py, contract/test_compare.py
    "certify_model": ("data", "truncate", "radius"),  # api/test_classifier.py
    "attack_model": ("target", "source", "epsilons", "random_perturbations", "restarts"),
    "quadratic_fit": ("data",),
    "trace": ("input_sae", "output_sae", "pairs", "tokenizer"),  # api/test_tracing.py
    "convert_network": ("recipe", "held_out"),  # api/test_network_conversion.py
    "train_image": ("watch", "stop"),  # train/tasks/test_image.py
    "train_language": ("column", "split", "limit", "stream", "held_out"),  # data/test_text.py
    "train_sae": ("hooks", "text"),  # api/test_training.py: refused for activations
    "layer_inputs": ("layers", "held_out"),  # train/test_recorded_inputs.py
    "polynomial_network": ("roles", "probe"),  # polynomial/test_reading.py
    "read_network": ("roles", "probe"),  # api/test_network_reading.py
    # io/formats/test_module_class.py has the last one
    "load": (
        *("residual", "roles", "activation", "transposed", "base", "output_names", "module_class"),
    ),
    "load_images": ("data_dir",),
    "from_module": ("example", "output_names"),  # contract/test_names_given.py
    "save": ("input_shape", "output_names", "input_names", "input_mean", "input_scale"),
    "export_sae": ("layout",),
    "push": ("private", "message", "reports", "license", "dry_run"),  # api/test_push.py
    # api/test_running_model.py
    "ablate": ("at", "mean", "positions", "control"),
    "steer": ("at", "positions", "control"),
    "patch": ("directions", "at", "positions", "control"),
    "record": ("at", "positions"),
}
RECIPES = {"train_image": ImageRecipe, "train_sae": SAERecipe}  # each field: train/tasks
DESCRIBES = {("save", "provenance"), ("export_sae", "provenance")}  # what is written as it is
OUT, HIDDEN, WIDTH = 3, 7, 5


def map_of(seed: int) -> bl.QuadraticMap:
    parts = (randn(OUT, HIDDEN, seed=seed), *(randn(HIDDEN, WIDTH, seed=seed + n) for n in (1, 2)))
    return bl.QuadraticMap(bl.BilinearTensor(*parts), randn(OUT, WIDTH, seed=5), randn(OUT, seed=6))


def told(found: Any) -> Any:
    """A result as plain values."""
    if isinstance(found, Tensor):
        return found.tolist()
    if isinstance(found, bl.NetworkReport):
        return found.to_dict()
    if is_dataclass(found):
        return {one.name: told(getattr(found, one.name)) for one in fields(found)}
    return [*map(told, found)] if isinstance(found, tuple | list) else repr(found)


def cases() -> Iterator[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], dict[str, Any]]]:
    """Yield functions, positional arguments, options that are the same, options that count."""
    f, g, x, direction = map_of(1), map_of(20), randn(4, WIDTH, seed=3), randn(OUT, seed=4)
    form, other, labels = f.form(direction), g.form(direction), f(x).argmax(dim=1)
    mean, covariance = randn(WIDTH, seed=8), torch.diag(torch.rand(WIDTH).double() + 0.5)
    eigs, again, c = bl.eigendecompose(form), bl.eigendecompose(other), bl.certify
    yield bl.attribute, (f, x), {}, {"baseline": mean, "outputs": [0], "target": labels}
    yield bl.attribute_to_background, (f, x, mean, covariance), {}, {"outputs": [0]}
    yield bl.pairwise_interactions, (form, x[0]), {}, {"baseline": mean}
    yield bl.top_interactions, (form, x[0], 2), {}, {"baseline": mean}
    yield bl.centred_directions, (4,), {}, {"outputs": [1]}
    yield bl.raw_directions, (4,), {}, {"outputs": [1]}
    fit = {"model": "symmetric", "method": "gradient", "num_starts": 1}
    yield bl.cp_decompose, (f, 3), {}, {**fit, "max_sweeps": 2, "tolerance": 0.5}
    more = {"directions": direction[None], "bias": mean, "top": 2, "bins": 7, "self_bins": 9}
    yield bl.direct_interactions, (f, randn(WIDTH, 6, seed=9)), {}, more
    yield bl.eigendecompose, (form,), {}, {"k": 2, "method": "lanczos"}
    yield bl.eigendecompose, (form,), {"k": 2}, {"which": "smallest"}
    yield bl.eigendecompose_all, (f,), {}, {"directions": direction[None], "method": "lanczos"}
    yield bl.eigendecompose_all, (f,), {"k": 2}, {"k": 1, "which": "smallest"}
    plans = {"directions": direction[None], "k": 2, "method": "lanczos"}
    yield bl.plan_eigendecomposition, (f,), {}, plans
    yield bl.hosvd, (f,), {}, {"rank": 1}
    match = {"method": "subspace", "k": 2, "signed": False, "num_samples": 19}
    yield bl.match_eigenvectors, (eigs, again), {}, match
    null = {"num_samples": 19, "embedding": randn(WIDTH, WIDTH + 1, seed=2)}
    yield bl.rotation_null, (f, None), {}, null
    yield bl.similarity, (f, g), {}, {"measure": "gaussian", "per_output": True}
    yield bl.whiten, (f, covariance), {}, {"mean": mean}
    parts = eigs.eigenvalues[None], form.linear[None], form.constant[None]
    errors = ("value_error", "linear_error", "constant_error")
    wide = {name: torch.full((1,), 0.1).double() for name in errors}
    yield c.distance_to_quadric, parts, {}, wide
    rows = randn(40, WIDTH, seed=11)
    attacked = f, rows, f(rows).argmax(dim=1)
    yield c.linf_radius, attacked, {"steps": 2}, {"restarts": 1, "steps": 1}
    yield c.prepare, (f,), {}, {"pairs": [(0, 1)]}
    yield c.projected_margin, (f, c.l2_radius(f, x, labels)), {}, {"low": -9.0, "high": 0.5}
    few = {"directions": direction[None], "k": 2}
    yield c.quantisation_stability, (f, "bfloat16"), {}, few
    usual = {"mean": mean, "covariance": covariance}  # which are passed together, or neither
    yield c.remove_inputs, (f, [0], 1.0), usual, {"mean": 2 * mean, "covariance": 2 * covariance}
    yield c.spectrum_stability, (form, other), {}, {"k": 2}
    yield c.unused_inputs, (f,), {}, {"tolerance": 1e9}
    network = bl.polynomial_network(transformer())
    asked = {"distance": 3, "tokens": [[0], [1]], "measure": "probability"}
    yield bl.token_interactions, (network, 2), {}, {**asked, "k": 2}
    yield bl.interaction_chance, (network, 2), {"num_samples": 2}, {**asked, "num_samples": 3}
    yield bl.split_interactions, (network, torch.tensor([[0, 1]])), {}, {"distance": 3}
    small = {"farthest": 2, "samples": 19, "k": 2}
    more = {"farthest": 1, "samples": 20, "k": 1, "tokens": [0, 1], "tokenizer": [*"abcdefg"]}
    yield bl.read_network, (network,), small, more
    one, two = (two_layers(seed, residual=False, bias=True) for seed in (0, 1))
    middle, spread = (
        torch.tensor([1.0, 2.0, 3.0]).double(),
        torch.diag(torch.rand(3).double() + 0.5),
    )
    yield bl.output_moments, (one,), {}, {"mean": middle, "covariance": spread}
    usual_draws = {"num_samples": 10}
    changed = {"mean": middle, "covariance": spread, "num_samples": 11}
    yield bl.approximate_moments, (one,), usual_draws, changed
    yield bl.decompose_wires, (one,), {}, {"mean": middle, "covariance": spread}
    moved = {"mean": middle, "covariance": spread, "outputs": [0], "centred": False}
    yield bl.network_similarity, (one, two), {}, moved


def test_each_option_of_a_computation_counts() -> None:
    """With each option alone, unlike its default, the answer is another one."""
    idle = []
    for function, given, same, options in cases():
        plain = told(function(*given, **same))
        for name, value in options.items():
            if told(function(*given, **{**same, name: value})) == plain:
                idle.append((function.__name__, name))
    assert idle == []


def test_each_option_of_each_public_function_is_in_one_of_these_lists() -> None:
    tried = {(one.__name__, name) for one, _, _, options in cases() for name in options}
    for function, verbs in ROWS_OF_TABLE.items():
        needs = [need for verb in verbs for need in RULES[verb].values()]
        tried |= {(function, name) for options in needs for name in options}
    tried |= {(function, name) for function, names in ELSEWHERE.items() for name in names}
    tried |= {(name, one.name) for name, recipe in RECIPES.items() for one in fields(recipe)}
    tried |= MADE_BEFORE | DESCRIBES
    every = set()
    for place in (bl, bl.certify):
        for name in place.__all__:
            found = getattr(place, name)
            if callable(found) and not inspect.isclass(found):
                signature = inspect.signature(found).parameters.values()
                every |= {(name, p.name) for p in signature if p.default is not p.empty}
    left = {(function, name) for function, name in every - tried if name not in FREE}
    assert left == set()
