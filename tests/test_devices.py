"""What computes, computes on the device of its tensors, and finds there what the processor finds.

`make test-gpu` runs it on a GPU. Elsewhere a device stands in that is not there (elsewhere.py): it
refuses what a GPU refuses, and says nothing of speed, memory or rounding there.
Turned red by: a dense solver whose array is on the processor, weights that a fit takes off their
device, labels that stay where they are.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import pytest
import torch
from torch import Tensor

import bilens as bl
import elsewhere
import language_runs
import traced_models
from bilens import certify
from bilens.algebra.approximation.data_fit import fit_neurons, quadratic_ceiling, refit_down
from bilens.algebra.map_comparison import noise_draw
from bilens.algebra.token_pairs import strongest_pairs
from bilens.base.errors import MemoryLimitError
from bilens.base.memory import MEMORY_LIMIT_VARIABLE, memory_limit
from bilens.io.host import host_of
from bilens.nn.classifier import BilinearClassifier
from bilens.nn.transformer import BilinearTransformer
from bilens.train import layer_fit
from bilens.train.activations import measure_sae
from bilens.train.distillation import distil
from bilens.train.layer_fit import ConversionRecipe, convert_layers
from bilens.train.layer_inputs import Passes, Rows
from bilens.train.loop import train
from bilens.train.processes import Processes
from bilens.train.tasks.language import LanguageTask
from bilens.train.tasks.sae import ReadModel, SAERecipe, SAETask, members

GPU = pytest.param(
    "cuda",
    marks=(
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    ),
)
Put = Callable[[Tensor], Tensor]  # a tensor of the processor on the device
GENERATOR = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


SMALL, WIDE = [(drawn(3, h), drawn(h, n), drawn(h, n)) for h, n in ((8, 6), (60, 90))]
U, LINEAR, CONSTANT, MEAN, X, DATA = (
    drawn(3),
    drawn(3, 6),
    drawn(3),
    drawn(6),
    drawn(9, 6),
    drawn(200, 6),
)
COVARIANCE, DICTIONARY, TURNED = DATA.T @ DATA / 200, drawn(6, 8), drawn(6, 9)
BIASES, ANSWERS = (drawn(8), drawn(8)), drawn(200, 3)
LABELS = torch.arange(9) % 3


def small(put: Put) -> bl.QuadraticMap:
    tensor = bl.BilinearTensor(*map(put, SMALL))
    return bl.QuadraticMap(tensor, put(LINEAR), put(CONSTANT))


def wide(put: Put) -> bl.QuadraticMap:
    return bl.QuadraticMap(bl.BilinearTensor(*map(put, WIDE)))


def form(put: Put) -> bl.QuadraticForm:
    return small(put).form(put(U))


def pairs(put: Put, k: int | None = None) -> bl.EigenDecomposition:
    return bl.eigendecompose(form(put), k=k)


def gated(put: Put, activation: Any = "silu") -> bl.GLUWeights:
    return bl.GLUWeights(*map(put, SMALL), activation, *map(put, BIASES))


def ordinary(put: Put) -> bl.MLPWeights:
    return bl.MLPWeights(put(SMALL[0]), put(SMALL[1]), "relu", put(BIASES[0]))


def refitted(put: Put) -> bl.GLUWeights:
    return refit_down(fit_neurons(gated(put), put(DATA), linear=True), put(DATA), put(ANSWERS))


JOBS: dict[str, Callable[[Put], Any]] = {
    "dense": lambda put: bl.eigendecompose_all(wide(put), k=2, method="dense", which="both"),
    "factored": lambda put: bl.eigendecompose_all(small(put), method="factored"),
    "lanczos": lambda put: bl.eigendecompose_all(wide(put), k=2, method="lanczos", verify=True),
    "directions": lambda put: bl.eigendecompose_all(small(put), bl.centred_directions(3), k=2),
    "rotation null": lambda put: bl.rotation_null(small(put), None, num_samples=2),
    "null of an embedding": lambda put: bl.rotation_null(
        small(put), put(LINEAR[:, :3]), num_samples=2, embedding=put(TURNED)
    ),
    "matching": lambda put: bl.match_eigenvectors(pairs(put), pairs(put), num_samples=2),
    "hosvd": lambda put: bl.hosvd(small(put)),
    "als": lambda put: bl.cp_decompose(small(put), 2, num_starts=1, max_sweeps=5),
    "gradient": lambda put: bl.cp_decompose(
        small(put), 2, method="gradient", num_starts=1, max_sweeps=5
    ),
    "attribution": lambda put: bl.attribute(small(put), put(X), put(MEAN), target=LABELS),
    "interactions": lambda put: bl.direct_interactions(small(put), put(DICTIONARY), top=3, bins=5),
    "pairs of inputs": lambda put: bl.pairwise_interactions(form(put), put(X[0])),
    "moments": lambda put: bl.gaussian_moments(small(put), put(MEAN), put(COVARIANCE)),
    "whitening": lambda put: bl.whiten(small(put), put(COVARIANCE), put(MEAN)),
    "similarity": lambda put: bl.similarity(small(put), small(put), "gaussian", per_output=True),
    "l2 radius": lambda put: certify.l2_radius(small(put), put(X), LABELS),
    "accuracy": lambda put: certify.certified_accuracy(
        certify.l2_radius(small(put), put(X), put(LABELS)), [0.1]
    ),
    "linf radius": lambda put: certify.linf_radius(small(put), put(X), put(LABELS), restarts=1),
    "agreement": lambda put: certify.certified_agreement(small(put), 2, put(X)),
    "quantisation": lambda put: certify.quantisation_stability(small(put), "int8"),
    "removed inputs": lambda put: certify.remove_inputs(small(put), [0, 2], 1.0),
    "removed inputs, no linear term": lambda put: certify.remove_inputs(wide(put), [0, 2], 1.0),
    "unused inputs": lambda put: certify.unused_inputs(wide(put)),
    "influence": lambda put: certify.influence_range(
        small(put), 0, (put(-torch.ones(6).double()), put(torch.ones(6).double())), 1
    ),
    "truncation": lambda put: certify.smallest_k(pairs(put), 0.1, 1.0),
    "universal": lambda put: certify.universal_perturbation(small(put), put(MEAN), 0, 1, [0.5]),
    "fit of a gate": lambda put: bl.quadratic_fit(gated(put), samples=100),
    "fit of a clamped gate": lambda put: bl.quadratic_fit(
        gated(put, "clamped_swiglu"), samples=100
    ),
    "fit of an MLP": lambda put: bl.quadratic_fit(ordinary(put), put(MEAN), put(COVARIANCE)),
    "fit to data": lambda put: bl.quadratic_fit(ordinary(put), data=DATA, train_steps=2),
    "refit": refitted,
    "ceiling": lambda put: quadratic_ceiling(put(DATA), put(ANSWERS)),
    "noise": lambda put: noise_draw(small(put), 2 * small(put), torch.Generator().manual_seed(0)),
    "token pairs": lambda put: strongest_pairs(small(put).tensor, put(X), put(LINEAR.T), k=5),
}


def language(put: Put) -> Any:
    """A step of a language model, and what it writes then."""
    told = language_runs.task(language_runs.changed(steps=1, evaluations=1))
    group = Processes(device=put(U).device)
    task = LanguageTask(told.recipe, told.tokens, told.tokenizer, told.corpus, group)
    run = task.start()
    assert len([*train(run, task)]) == 1
    text = put(torch.tensor([[1, 2]]))
    return run.model.embed.weight.detach(), run.model.generate(text, 3, temperature=0.5, seed=0)


def model(put: Put, gate: Literal["silu"] | None = None) -> BilinearTransformer:
    torch.manual_seed(0)
    return BilinearTransformer(11, 8, 12, 2, 2, 6, gate).to(put(U).device)


def autoencoder(put: Put) -> Any:
    """Some steps on the activations of a model, and what is measured of it."""
    hook, texts = "blocks.1.mlp_in", torch.arange(60).reshape(10, 6) % 11
    recipe = SAERecipe((hook,), num_latents=12, k=2, tokens=64, batch_size=16, dead_after=16)
    read = ReadModel(model(put), "model", "0" * 64, texts, texts, "texts")
    task = SAETask(recipe, read, Processes(device=put(U).device))
    run = task.start()
    assert [*train(run, task)]
    (sae,) = members(run)
    measured = measure_sae(read.model, sae, hook, texts)
    return sae.decoder.detach(), put(torch.tensor([measured.fvu, measured.loss_patched]))


def conversion(put: Put) -> Any:
    """Layers fitted and trained, and three steps of distillation."""
    teacher = host_of(model(put, "silu"), Path("teacher"))
    texts, student = torch.arange(240).reshape(40, 6) % 11, teacher.twin()
    recipe = ConversionRecipe(n_ctx=6, layer_steps=2, precision="float32", batch_size=2)
    mixture = Rows(texts, texts[:8], "texts", 0, 6)
    mixture.fitted = texts
    with TemporaryDirectory() as place, mock.patch.object(layer_fit, "ThreadPoolExecutor", Serial):
        assert len([*convert_layers(student, [0, 1], (texts, texts[:8]), recipe, Path(place))]) == 2
        trained = [one for site in student.sites for one in student.at(site).parameters()]
        given = (Passes(mixture, 0, 40), 0, texts[:8]), recipe, 3, Path(place)
        assert len([*distil(teacher, student, trained, *given)]) == 1
    return [one.detach() for one in student.module.parameters()]


class Serial:
    """In the place of threads, in which a device that is not there would not be known."""

    def __init__(self, _workers: int) -> None:
        self.map = map

    def __enter__(self) -> "Serial":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def tracing(put: Put) -> Any:
    """A trace of a layer, its numbers."""
    with TemporaryDirectory() as place:
        model, *saes = traced_models.write_all(Path(place))
        loaded = bl.load(model)
        assert isinstance(loaded.module, BilinearTransformer)
        loaded.module.to(put(U).device)
        found = bl.trace(
            loaded, 0, input_sae=saes[0], output_sae=saes[1], tokens=150, outputs=1, pairs=2
        )
    return put(torch.tensor([*numbers_in(found.document)], dtype=torch.float32))


def numbers_in(value: Any) -> Iterator[float]:
    """Every number of a document that is no whole one."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(one)


JOBS |= {
    "tracing": tracing,
    "language": language,
    "autoencoder": autoencoder,
    "conversion": conversion,
}


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor of a result."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from tensors_of(one)
    elif dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            yield from tensors_of(getattr(value, one.name))


@pytest.fixture(params=["not there", GPU])
def put(request: pytest.FixtureRequest) -> Iterator[Put]:
    """What moves a tensor to the device."""
    if request.param == "cuda":
        yield lambda x: x.to("cuda")
        return
    with elsewhere.device():
        yield lambda x: elsewhere.there(x.clone())


LONG = pytest.param("tracing", marks=pytest.mark.slow)


@pytest.mark.parametrize("job", [*(one for one in JOBS if one != "tracing"), LONG])
def test_it_is_computed_where_the_tensors_are(job: str, put: Put) -> None:
    wanted = [*tensors_of(JOBS[job](Tensor.clone))]
    found = [*tensors_of(JOBS[job](put))]
    assert wanted
    assert {x.device.type for x in found} == {put(U).device.type}
    for one, other in zip(found, wanted, strict=True):
        rtol, atol = (1e-3, 1e-4) if other.dtype == torch.float32 else (1e-6, 1e-8)
        torch.testing.assert_close(one.cpu(), other, rtol=rtol, atol=atol, equal_nan=True)


def test_a_plan_has_the_memory_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MEMORY_LIMIT_VARIABLE, raising=False)
    told = SimpleNamespace(mem_get_info=lambda _device: (1 << 30, 4 << 30))  # as torch.cuda
    monkeypatch.setattr(torch, elsewhere.DEVICE.type, told, raising=False)
    with elsewhere.device():
        f = wide(lambda x: elsewhere.there(x.clone()))
        assert bl.plan_eigendecomposition(f).limit_bytes == 3 << 30
        told.mem_get_info = lambda _device: (0, 1 << 10)
        with pytest.raises(MemoryLimitError, match=r"the limit is 0\.00 MiB"):
            f.form(0).dense()
    assert bl.plan_eigendecomposition(wide(Tensor.clone)).limit_bytes == memory_limit()


def test_an_audit_reads_on_the_processor_and_leaves_the_model_where_it_is(put: Put) -> None:
    torch.manual_seed(0)
    wanted, rows = BilinearClassifier(6, 8, 3), (torch.rand(30, 6), torch.arange(30) % 3)
    model = copy.deepcopy(wanted).to(put(U).device)
    found = bl.certify_model(model, rows, samples=5).document
    assert found["l2"] == bl.certify_model(wanted, rows, samples=5).document["l2"]
    assert model.embed.weight.device.type == put(U).device.type
