"""What computes, computes on the device of its tensors, and finds there what the processor finds.

`make test-gpu` runs it on a GPU; elsewhere the processor stands in, which shows that the test is
right and nothing more.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bilens as bl
import language_runs
from bilens.nn.transformer import BilinearTransformer
from bilens.train.activations import ActivationStream
from bilens.train.loop import train
from bilens.train.processes import Processes
from bilens.train.tasks.language import LanguageTask
from bilens.train.tasks.sae import SAERecipe
from bilens.train.tasks.sae_of_tensor import ActivationsTask

GPU = pytest.param(
    "cuda",
    marks=(
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    ),
)


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the tensors are."""
    return torch.device(request.param)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def eigenvalues(device: torch.device) -> Tensor:
    tensor = bl.BilinearTensor(*(x.to(device) for x in (drawn(3, 8), drawn(8, 6), drawn(8, 6))))
    return bl.eigendecompose(bl.QuadraticMap(tensor).form(drawn(3).to(device)), k=3).eigenvalues


def singular_values(device: torch.device) -> Tensor:
    tensor = bl.BilinearTensor(*(x.to(device) for x in (drawn(3, 8), drawn(8, 6), drawn(8, 6))))
    return bl.hosvd(bl.QuadraticMap(tensor)).singular_values


def trained_weights(device: torch.device) -> Tensor:
    told = language_runs.task(language_runs.changed(steps=3, evaluations=1))
    group = Processes(device=device)
    task = LanguageTask(told.recipe, told.tokens, told.tokenizer, told.corpus, group)
    run = task.start()
    assert len([*train(run, task)]) == 1
    return run.model.embed.weight.detach()


def trained_directions(device: torch.device) -> Tensor:
    recipe = SAERecipe(("activations",), num_latents=12, k=2, tokens=64, batch_size=16)
    task = ActivationsTask(recipe, drawn(64, 5), Processes(device=device))
    run = task.start()
    assert len([*train(run, task)]) == 1
    return next(run.model.parameters()).detach()


def activations(device: torch.device) -> Tensor:
    torch.manual_seed(0)
    model = BilinearTransformer(11, 8, 12, 2, 2, 6).to(device)
    texts = torch.arange(36).reshape(6, 6) % 11
    hook = "blocks.1.mlp_in"
    return ActivationStream(model, texts, (hook,), 20, 0).buffer(0).activations[hook]


JOBS = [eigenvalues, singular_values, trained_weights, trained_directions, activations]


@pytest.mark.parametrize("job", JOBS)
def test_it_is_computed_where_the_tensors_are(
    job: Callable[[torch.device], Tensor], device: torch.device
) -> None:
    found = job(device)
    assert found.device.type == device.type
    torch.testing.assert_close(found.cpu(), job(torch.device("cpu")), rtol=1e-4, atol=1e-5)
