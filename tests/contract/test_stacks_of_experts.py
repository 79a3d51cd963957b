"""Guards against a stack of experts that is told by one of them.

Damage that it notices: the rank of a change that is that of the expert with the least.
"""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import save_file
from torch import Tensor

import bilens as bl
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.loaded_model import LoadedModel
from contract.compared_models import generator_of
from contract.drawn import drawn
from contract.table import cell

D, HIDDEN, EXPERTS = 12, 10, 3
NAME = "model.layers.0.mlp.experts.down_proj"


def written(folder: Path, stack: Tensor) -> LoadedModel:
    """A mixture of experts of one layer that a folder holds, with these matrices down."""
    draw = generator_of(5)
    tensors = {
        NAME: stack.contiguous(),
        "model.layers.0.mlp.experts.gate_up_proj": torch.randn(
            EXPERTS, 2 * HIDDEN, D, generator=draw
        ),
        "model.layers.0.mlp.gate.weight": torch.randn(EXPERTS, D, generator=draw),
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    about = {"model_type": "qwen3_moe", "hidden_act": "silu", "hidden_size": D}
    about |= {"num_hidden_layers": 1, "moe_intermediate_size": HIDDEN, "num_experts": EXPERTS}
    (folder / "config.json").write_text(json.dumps(about))
    return bl.load(folder)


@cell("compare", "permuted units", "other function")
@drawn
@given(
    seed=st.integers(0, 1000),
    ranks=st.lists(st.sampled_from([0, 1, 2, 8, HIDDEN]), min_size=EXPERTS, max_size=EXPERTS),
)
def test_a_change_of_a_stack_is_that_of_all_its_experts(
    seed: int, ranks: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The rank is what the most changed expert needs, whichever of them that is."""
    root, draw = tmp_path_factory.mktemp("m"), generator_of(seed)
    old = torch.randn(EXPERTS, D, HIDDEN, generator=draw)
    change = torch.stack(
        [
            torch.randn(D, rank, generator=draw) @ torch.randn(rank, HIDDEN, generator=draw)
            for rank in ranks
        ]
    )
    new = old + 0.1 * change
    model, baseline = written(root / "new", new), written(root / "old", old)
    told = {one.name: one for one in compare_tensors(model.tensors, baseline.tensors).changed}
    assert told.keys() == ({NAME} if any(ranks) else set())
    for one in told.values():
        assert one.rank == max(ranks)
        assert (one.state == "low_rank") == (max(ranks) <= HIDDEN // 2)
        size = float((new - old).double().norm() / old.double().norm())
        assert one.change == pytest.approx(size, rel=1e-6)
