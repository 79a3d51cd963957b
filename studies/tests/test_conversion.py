"""The study of conversions, on a model of one block that saw a few texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bilens.base.errors import InterruptedRunError, UsageError
from bilens.data import text
from bilens.io.host import host_of
from bilens.nn import BilinearMLP, BilinearTransformer
from bilens_studies import conversion_ways as by, gated_conversion as conversion
from bilens_studies.conversion_ways import OURS, WAYS, AnnealedMLP, Case
from bilens_studies.gated_conversion import ConversionStudy, cases
from bilens_studies.study import StudyOptions
from bilens_studies.study_folder import run_study
from tests import traced_models

OPTIONS = StudyOptions(corpus="grammar", steps=2, tokens=2048)


def is_usual(case: Case) -> bool:
    plain = (case.width, case.limit, case.passes) == (
        1,
        "none",
        1,
    ) and case.way != "trained layers alone"
    return plain and (case.optimizer == "adamw") == (WAYS[case.way][1] == "cross-entropy")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """The cases of a study that is small: each way once."""
    monkeypatch.setattr(text, "GRAMMAR_STORIES", 300)
    monkeypatch.setattr(by, "LAYER_TOKENS", 1024)
    monkeypatch.setattr(by, "LAYER_STEPS", 2)
    kept = [case for case in cases(OPTIONS) if is_usual(case)]
    monkeypatch.setattr(conversion, "cases", lambda _options: kept)
    return kept


def test_every_way_is_measured_on_the_same_text_and_told(small: list[Case], tmp_path: Path) -> None:
    result = run_study(ConversionStudy(), tmp_path, OPTIONS)["result"]
    rows = result["rows"]
    assert {row["way"] for row in rows} == {*WAYS} - {"trained layers alone"}
    assert len({(row["teacher_loss"], row["measured_tokens"]) for row in rows}) == 1
    assert {row["tokens"] for row in rows} == {1024, 2048}  # layers alone, and all others
    assert len(rows) == len(small)
    kl = {row["way"]: row["kl"] for row in rows}
    assert min(kl["from scratch"], kl["annealing + cross-entropy"]) > 100 * kl[OURS] > 0
    assert not result["left"]
    page = (tmp_path / "study.md").read_text()
    told = [line for line in page.splitlines() if line.startswith("| from scratch")]
    assert len(told) == 1
    assert told[0].startswith("| from scratch | – | ")
    assert "<svg" in (tmp_path / "conversion.svg").read_text()


def test_an_interrupted_study_tells_what_it_has_and_goes_on(
    small: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small[:] = [case for case in small if case.way in ("closed form alone", "annealing + KL")]
    measure = conversion.measure

    def stopped(options: StudyOptions, case: Case, context: Any) -> Any:
        if case is small[1]:
            raise KeyboardInterrupt
        return measure(options, case, context)

    monkeypatch.setattr(conversion, "measure", stopped)
    with pytest.raises(InterruptedRunError, match="repeat the same command"):
        run_study(ConversionStudy(), tmp_path, OPTIONS)
    page = (tmp_path / "study.md").read_text()
    assert "| closed form alone | " in page
    assert "Cells not measured: 1;" in page
    monkeypatch.setattr(conversion, "measure", measure)
    result = run_study(ConversionStudy(), tmp_path, OPTIONS)["result"]
    assert len(result["rows"]) == 2
    assert not result["left"]


def test_the_annealed_gate_is_silu_first_and_bilinear_at_last() -> None:
    torch.manual_seed(0)
    block, x = BilinearMLP(4, 6, bias=True, gate="silu"), torch.randn(5, 4)
    annealed = AnnealedMLP(block)
    torch.testing.assert_close(annealed(x), block(x))
    annealed.beta = 0.0
    product = block.left(x) / 2 * block.right(x)
    wanted = block.down(product)
    torch.testing.assert_close(annealed(x), wanted)
    ended = annealed.to_bilinear()
    assert ended.quadratic_map() is not None  # exact: no gate is left
    torch.testing.assert_close(ended(x), wanted)


@pytest.mark.parametrize("limit", ["clamp", "penalty"])
def test_large_products_are_cut_off_or_cost_while_logits_are_learnt(
    limit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    teacher = host_of(BilinearTransformer(20, 8, 12, 1, 2, 16, gate="silu"), Path("teacher"))
    student = teacher.twin(share=False)
    (site,) = student.sites
    student.replace({site.name: BilinearMLP(8, 12, bias=True)})
    (block,) = [one for one in student.module.modules() if isinstance(one, BilinearMLP)]
    texts, found = torch.randint(20, (4, 16)), dict[str, float]()

    class Texts:
        n_ctx, held_out = 16, {"text": texts}

    def distil(*given: Any) -> Iterator[None]:
        found["with"] = float(given[-1](texts, 0.5).detach())
        found["hooks"] = len(block.down._forward_pre_hooks)
        yield None

    monkeypatch.setattr(by, "distil", distil)
    monkeypatch.setattr(by, "WIDEST", 0.5)
    case = Case("teacher", OURS, 256, 1, 0, "muon", limit=limit)
    mixture: Any = Texts()
    by.learn(teacher, student, mixture, case, Path("nowhere"))
    assert found["hooks"] == 1
    assert not block.down._forward_pre_hooks  # the model that comes out has no limits
    plain = float(by.kl_on(teacher, student, texts, case.recipe(16).resolved()).detach())
    if limit == "penalty":
        ((size, _),) = by.product_sizes(student, texts).values()
        x = student.module.activations(texts, ("blocks.0.mlp_in",))["blocks.0.mlp_in"]
        products = block.left(x) * block.right(x)
        beyond = (products.abs() / (0.5 * size) - 1).relu().square().mean()
        assert found["with"] == pytest.approx(plain + by.PENALTY * float(beyond.detach()), rel=0.01)
    else:
        assert found["with"] != pytest.approx(plain, rel=1e-4)


def test_a_given_model_is_converted_in_the_same_ways_but_not_trained(tmp_path: Path) -> None:
    model = traced_models.write_model(tmp_path / "model", n_layer=2)
    asked = StudyOptions(corpus="grammar", models=(str(model),), seeds=2, tokens=200_000)
    found = cases(asked)
    assert len({case.name for case in found}) == len(found)
    assert {case.way for case in found} == {*WAYS} - {"from scratch"}
    assert {case.tokens for case in found} == {10_000, 16_384, 30_000, 125_000}
    assert {case.blocks for case in found} == {2}
    with pytest.raises(UsageError, match="SwiGLU"):
        ConversionStudy().check(asked)
