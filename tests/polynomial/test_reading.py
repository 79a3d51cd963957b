"""Guards against a network that is read as another function: files, roles, probes, modules."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
from bilens.base.errors import BilensError, CheckpointError, NumericalError, ShapeError, UsageError
from bilens.nn import PolynomialTransformer

AT = "blocks.{block}."
ROLES = bl.TransformerRoles(
    embedding="embed.weight",
    head="unembed.weight",
    query=(f"{AT}attention.queries.0.weight", f"{AT}attention.queries.1.weight"),
    key=(f"{AT}attention.keys.0.weight", f"{AT}attention.keys.1.weight"),
    value=f"{AT}attention.value.weight",
    out=f"{AT}attention.out.weight",
    left=f"{AT}mlp.left.weight",
    right=f"{AT}mlp.right.weight",
    down=f"{AT}mlp.down.weight",
    attention_scale=f"{AT}attention_scale.scale",
    mlp_scale=f"{AT}mlp_scale.scale",
    head_scale="final_scale.scale",
    n_head=2,
    n_ctx=10,
)


def transformer() -> PolynomialTransformer:
    torch.manual_seed(0)
    found = PolynomialTransformer(7, 8, 6, 2, 2, 10)
    with torch.no_grad():
        for name, part in found.named_parameters():
            part.normal_(1.0 if name.endswith("scale") else 0.0, 0.4)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(transformer().state_dict(), tmp_path / "network.safetensors")
    return tmp_path / "network.safetensors"


def probe() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(7, (4, 10), generator=torch.Generator().manual_seed(1))
    return tokens, transformer()(tokens).detach()


def test_a_file_is_read_by_its_roles_and_compared_with_a_probe(file: Path) -> None:
    read = bl.polynomial_network(file, ROLES, probe=probe())
    assert read.checked_against == "the outputs of a probe"
    assert bl.polynomial_network(file, ROLES).checked_against == ""
    tokens, logits = probe()
    torch.testing.assert_close(read(tokens), logits.double(), rtol=1e-4, atol=1e-5)
    module = bl.polynomial_network(transformer())
    assert module.checked_against == "the module itself, as it runs"
    torch.testing.assert_close(module(tokens), logits.double(), rtol=1e-4, atol=1e-5)
    assert read.part_names == ("attention 0", "mlp 0", "attention 1", "mlp 1")
    assert read.degree == module.degree == 100


def test_heads_that_fade_are_read_by_their_rates(tmp_path: Path) -> None:
    module = PolynomialTransformer(7, 8, 6, 2, 2, 10, decay=True)
    module.load_state_dict(transformer().state_dict())
    save_file(module.state_dict(), tmp_path / "n.safetensors")
    tokens = probe()[0]
    known = tokens, module(tokens).detach()
    roles = replace(ROLES, decay=(0.3, 0.1))
    assert bl.polynomial_network(tmp_path / "n.safetensors", roles, probe=known).checked_against
    with pytest.raises(NumericalError, match="another function"):
        bl.polynomial_network(tmp_path / "n.safetensors", ROLES, probe=known)


def test_vectors_of_positions_are_read_by_their_role(tmp_path: Path) -> None:
    module, vectors = transformer(), torch.randn(10, 8, generator=torch.Generator().manual_seed(2))
    module.embed.register_forward_hook(lambda _, __, y: y + vectors[: y.shape[-2]])
    save_file({**module.state_dict(), "places": vectors}, tmp_path / "n.safetensors")
    tokens = probe()[0]
    known = tokens, module(tokens).detach()
    roles = replace(ROLES, positions="places")
    read = bl.polynomial_network(tmp_path / "n.safetensors", roles, probe=known)
    assert read.positions is not None
    alone = bl.token_interactions(read, 1).values
    expected = module(torch.arange(7)[:, None])[:, 0].detach().double()
    torch.testing.assert_close(alone, expected - expected.mean(1, True), rtol=1e-4, atol=1e-5)
    with pytest.raises(NumericalError, match="another function"):
        bl.polynomial_network(tmp_path / "n.safetensors", ROLES, probe=known)


def test_what_the_probe_does_not_show_was_not_compared(tmp_path: Path) -> None:
    """The attention adds less than single precision shows: swapped keys would pass."""
    module = transformer()
    with torch.no_grad():
        for block in module.blocks:
            block.attention.out.weight *= 1e-7
    save_file(module.state_dict(), tmp_path / "n.safetensors")
    known = probe()[0], module(probe()[0]).detach()
    assert (
        bl.polynomial_network(tmp_path / "n.safetensors", ROLES, probe=known).checked_against == ""
    )


def test_training_mode_and_gradients_do_not_change_what_is_read() -> None:
    module = transformer().train()
    network = bl.polynomial_network(module)
    assert module.training
    assert not network.reference.requires_grad


WRONG = {
    "exchanged query and key of one pair": replace(
        ROLES, query=(ROLES.query[0], ROLES.key[1]), key=(ROLES.key[0], ROLES.query[1])
    ),
    "no scale before the attention": replace(ROLES, attention_scale=None),
    "no scale before the head": replace(ROLES, head_scale=None),
    "one head": replace(ROLES, n_head=1),
    "no rotary positions": replace(ROLES, rotary_base=None),
    "another base": replace(ROLES, rotary_base=500.0),
    "value and out of one shape exchanged": replace(ROLES, value=ROLES.out, out=ROLES.value),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_roles_are_another_function(name: str, file: Path) -> None:
    with pytest.raises(NumericalError, match="another function"):
        bl.polynomial_network(file, WRONG[name], probe=probe())


def test_exchanged_branches_are_the_same_function(file: Path) -> None:
    roles = replace(ROLES, left=ROLES.right, right=ROLES.left)
    assert bl.polynomial_network(file, roles, probe=probe()).checked_against


REFUSED: dict[str, tuple[bl.TransformerRoles, type[BilensError], str]] = {
    "a tensor that is not there": (replace(ROLES, head="lm_head"), CheckpointError, "'lm_head'"),
    "no block": (replace(ROLES, value="h.{block}.v"), CheckpointError, "no tensor 'h.0.v'"),
    "a shape that does not fit": (replace(ROLES, head=f"{AT}x"), CheckpointError, "no tensor"),
    "heads that do not divide": (replace(ROLES, n_head=3), ShapeError, "3 heads"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_a_file_is_one_sentence(name: str, file: Path) -> None:
    roles, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        bl.polynomial_network(file, roles)


def test_names_of_pairs_are_tuples_of_one_length() -> None:
    with pytest.raises(UsageError, match="as many tensors each"):
        replace(ROLES, key=ROLES.key[:1])
    with pytest.raises(UsageError, match="as many tensors each"):
        replace(ROLES, query="q", key="k")
    with pytest.raises(UsageError, match="roles= are of a file"):
        bl.polynomial_network(transformer(), ROLES)


def test_a_probe_of_other_outputs_is_refused(file: Path) -> None:
    tokens, logits = probe()
    with pytest.raises(NumericalError, match="has outputs"):
        bl.polynomial_network(file, ROLES, probe=(tokens, logits[:, :, :3]))
    with pytest.raises(NumericalError, match="another function"):
        bl.polynomial_network(file, ROLES, probe=(tokens, logits.flip(0)))


def test_the_loss_is_the_cross_entropy_of_the_next_token() -> None:
    module, (tokens, logits) = transformer(), probe()
    shown, then = logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(shown, then)
    torch.testing.assert_close(module.next_token_loss(tokens).detach(), expected)


def test_a_probe_of_single_tokens_shows_nothing_of_attention(file: Path) -> None:
    """Seen: accepted with any base of the angles."""
    tokens = torch.arange(7)[:, None]
    with pytest.raises(UsageError, match="texts of the probe have 1 tokens"):
        bl.polynomial_network(file, ROLES, probe=(tokens, transformer()(tokens).detach()))


def test_what_acts_on_short_texts_alone_is_seen() -> None:
    """Interactions are of texts of one to three tokens."""
    model = transformer()
    model.register_forward_hook(lambda _, given, y: y + (given[0].shape[1] < 3))
    with pytest.raises(BilensError):
        bl.polynomial_network(model)


def test_16_bits_are_another_function() -> None:
    network = bl.polynomial_network(transformer())
    assert network.to(torch.float32).checked_against
    assert not network.to(torch.bfloat16).checked_against
    assert not bl.polynomial_network(transformer().bfloat16()).checked_against


def test_a_network_with_another_head_was_compared_with_nothing() -> None:
    """Seen: "the module itself, as it runs" of a head that the user had put there."""
    network = bl.polynomial_network(transformer())
    assert network.head is not None
    assert network.checked_against
    assert not replace(network, head=5 * network.head).checked_against
