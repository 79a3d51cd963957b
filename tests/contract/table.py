"""The contract: every verb of bilens under every relation that a user would take for granted.

A *verb* is something that a user does with a model; a *relation* is a change of the model, its
data or the run whose effect on the answer is known without bilens. A test says with `cell` which
cells of the table it fills. Cells that no test fills stand in `EMPTY`, each with its reason.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])
Cell = tuple[str, str]  # verb, relation

VERBS = (
    "load module",
    "load file",
    "load estimator",
    "audit",
    "certify",
    "attack",
    "explain",
    "attribute",
    "compare",
    "fit",
    "decompose",
    "convert",
    "train table",
    "trace",
    "sweep",
    "explore",
    "network",
)
RELATIONS = {
    "own object": "what was read equals the object that was given, called as its owner calls it",
    "permuted units": "hidden units in another order",
    "permuted inputs": "inputs in another order, names and data with them",
    "permuted outputs": "outputs in another order, names and labels with them",
    "other names": "names of classes or columns, and what bears them, changed together or alone",
    "scaled branches": "one branch times a number, the other divided by it",
    "common function": "the same function added to all logits",
    "other units": "an input or an answer written in another unit",
    "other dtype": "the same numbers in another type",
    "repeated rows": "each row of the data twice",
    "shuffled rows": "rows of the data in another order",
    "sorted rows": "rows of the data sorted by their right answer",
    "threads": "two threads of computation in place of one",
    "resumed": "interrupted and gone on with",
    "saved": "saved and loaded, or read again from its file",
    "same function": "the function written otherwise: the same verdict",
    "other function": "another function, reading, data or option: another verdict",
    "without effect": "an option that would do nothing is refused",
}
ROWS = ("repeated rows", "shuffled rows", "sorted rows")
NO_ROWS = "it reads no rows of data"
NO_STATE = "it has no state to go on with"
NO_LOGITS = "it says nothing of logits"
# Of what a user calls, the verb: functions and classes of the package, commands, readers of files.
CALLS: dict[str, tuple[str, ...]] = {
    "load module": ("bl.from_module",),
    "load file": (
        *("bl.load", "reader PEFT adapter", "reader SAELens", "reader sparsify"),
        *(
            "reader circuit-tracer",
            "reader the paper's autoencoder",
            "reader converted model",
            "reader Hugging Face",
        ),
        *("reader the paper's transformer", "reader the paper's image model", "reader ONNX"),
        *("reader bilens model folder", "reader safetensors", "reader GGUF", "reader Keras"),
        *("reader SavedModel", "reader PyTorch"),
    ),
    "load estimator": ("bl.from_sklearn", "reader scikit-learn"),
    "audit": ("bl.audit", "bilens audit"),
    "certify": (
        *("bl.certify_model", "bilens certify", "bl.certify.certified_accuracy"),
        *("bl.certify.certified_agreement", "bl.certify.distance_to_quadric"),
        "bl.certify.enclose_spectrum",
        *("bl.certify.influence_range", "bl.certify.l2_radius", "bl.certify.linf_radius"),
        *("bl.certify.prepare", "bl.certify.projected_margin", "bl.certify.quantisation_stability"),
        *("bl.certify.remove_inputs", "bl.certify.smallest_k", "bl.certify.solve_trust_region"),
        *("bl.certify.spectrum_stability", "bl.certify.truncated_input_bound"),
        *("bl.certify.truncation_error", "bl.certify.truncation_moments"),
        *("bl.certify.universal_perturbation", "bl.certify.unused_inputs"),
    ),
    "attack": ("bl.attack_model", "bilens attack"),
    "explain": ("bilens explain",),
    "attribute": (
        *("bl.attribute", "bl.attribute_to_background", "bl.pairwise_interactions"),
        "bl.top_interactions",
    ),
    "compare": ("bl.match_eigenvectors", "bl.similarity"),
    "fit": ("bl.quadratic_fit", "bl.activation_moments", "bl.layer_inputs", "bilens fit"),
    "decompose": (
        *("bl.eigendecompose", "bl.eigendecompose_all", "bl.cp_decompose", "bl.hosvd"),
        *("bl.gaussian_moments", "bl.whiten", "bl.rotation_null", "bl.effective_rank"),
        *("bl.localisation", "bl.raw_directions", "bl.centred_directions"),
        *("bl.contrast_direction", "bl.dual_expression", "bl.interaction_submatrix"),
        "bilens decompose",
    ),
    "convert": ("bl.convert_network", "bilens convert"),
    "train table": (
        *("bl.sklearn.BilinearClassifier", "bl.sklearn.BilinearRegressor"),
        "bilens train table",
    ),
    "trace": ("bl.trace", "bl.direct_interactions", "bilens trace"),
    "sweep": ("bilens sweep",),
    "explore": ("bilens serve",),
    "network": (
        *("bl.polynomial_network", "bl.token_interactions", "bl.interaction_chance"),
        *("bl.split_interactions", "bl.output_moments", "bl.network_similarity"),
        *("bl.decompose_wires", "bl.approximate_moments", "bl.read_attention", "bl.read_at_text"),
        *("bl.read_network", "bilens read"),
    ),
}
MAKES = "it makes or writes a model or data, of which verbs then say something"
OF_NO_VERB: dict[str, str] = {
    **dict.fromkeys(("bl.save", "bl.export_sae", "bl.quantise", "bl.load_images"), MAKES),
    **dict.fromkeys(("bl.train_image", "bl.train_language", "bl.train_sae"), MAKES),
    **dict.fromkeys(("bilens train image", "bilens train language", "bilens train sae"), MAKES),
    "bilens demo": MAKES,
    **dict.fromkeys(("bl.push", "bilens push"), "it sends the files of a model as they are"),
    "bl.plan_eigendecomposition": "it says what a decomposition would cost, and nothing of a model",
    "bl.load_converted": "it gives a module to run, and says nothing of it",
    **dict.fromkeys(("bl.inventory", "bilens inspect"), "it lists what lies there, unread"),
    "bilens watch": "it has what changed audited again, by the call of bilens audit",
    **dict.fromkeys(("bl.ablate", "bl.steer", "bl.patch"), "it changes a run of the user's own"),
    "bl.record": "it keeps what a run of the user's own gives",
    "bl.reproduce": "it runs another package, which has tests of its own",
    "bilens reproduce": "it comes with another package, which has tests of its own",
}


def without(verbs: tuple[str, ...], relations: tuple[str, ...], why: str) -> dict[Cell, str]:
    """Return cells that no test fills, with the reason."""
    return {(verb, relation): why for verb in verbs for relation in relations}


LOADS = ("load module", "load file", "load estimator")
EMPTY: dict[Cell, str] = {
    **without((*LOADS, "decompose", "trace", "sweep", "explore", "network"), ROWS, NO_ROWS),
    **without(("attribute",), (*ROWS, "other names"), "it reads one row at a time, by place"),
    **without((*LOADS, "audit", "certify", "attack", "explain"), ("resumed",), NO_STATE),
    **without(("attribute", "compare", "fit", "explore", "network"), ("resumed",), NO_STATE),
    **without(("network",), ("other names",), "tokens and outputs are numbers, and have no names"),
    **without((*LOADS, "sweep"), ("common function",), NO_LOGITS),
    **without(("load module",), ("other units",), "a module has no units"),
    **without(("load estimator",), ("without effect",), "it has no option"),
    **without(("fit",), ("other names",), "it reads arrays by place, and names no input or output"),
    **without(("fit",), ("saved",), "a fit is not saved but as a record"),
    **without(
        ("train table",),
        ("own object", "permuted units", "scaled branches", "same function", "common function"),
        "its model is what it makes",
    ),
    **without(("train table",), ("resumed",), NO_STATE),
    **without(("trace",), ("other names", "other units"), "tokens and the stream have neither"),
    **without(("trace",), ("common function",), "of a language model, along one latent"),
}


def cell(verb: str, *relations: str) -> Callable[[Test], Test]:
    """Say which cells of the table a test fills."""
    assert verb in VERBS, f"{verb!r} is no verb of the table"
    assert relations, "name at least one relation"
    assert {*relations} <= RELATIONS.keys(), f"{relations} are not all relations of the table"

    def marked(test: Test) -> Test:
        cells = getattr(test, "cells", ())
        test.cells = (*cells, *((verb, one) for one in relations))  # type: ignore[attr-defined]
        return test

    return marked
