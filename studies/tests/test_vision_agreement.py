"""Agreement of runs and truncation: planted vectors, pairs and curves with one right reading."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bilens import BilinearTensor, QuadraticMap, eigendecompose_all
from bilens.base.errors import UsageError
from bilens.nn.classifier import classifier_of_map
from bilens_studies import consistency, truncation
from bilens_studies.consistency import ConsistencyStudy
from bilens_studies.published import finding
from bilens_studies.study import StudyOptions

N = 24  # pixels; the vectors are the axes


def planted(values: Tensor) -> QuadraticMap:
    """One output with these eigenvalues on the axes, the first axes first."""
    eye = torch.eye(N, dtype=torch.float64)[: len(values)]
    return QuadraticMap(BilinearTensor(values[None].double(), eye, eye))


def test_a_mean_over_pairs_leaves_out_runs_with_themselves() -> None:
    pairs = torch.full((5, 5), 0.8).double().fill_diagonal_(1.0)
    found = consistency.mean_over_pairs(pairs, same=True)
    assert found["value"] == pytest.approx(0.8)
    assert found["low"] == pytest.approx(0.8)  # all pairs agree
    # run 0 is apart: with it 4 of 10 pairs are 0; pseudo-values 5 · 0.6 − 4 θ without the run
    pairs = torch.ones(5, 5).double()
    pairs[0] = pairs[:, 0] = 0
    found = consistency.mean_over_pairs(pairs, same=True)
    assert found["value"] == pytest.approx(0.6)
    assert found["runs"] == pytest.approx([3 - 4, *[3 - 4 * 0.5] * 4])
    assert consistency.mean_over_pairs(pairs, same=False)["value"] == pytest.approx(
        0.64
    )  # 16 of 25
    assert consistency.mean_over_pairs(pairs[:2, :2], same=True)["low"] is None


def test_the_script_counts_a_run_with_itself() -> None:
    for name, one in ConsistencyStudy().published.items():
        if name.startswith("script-"):
            printed = float(one.others.removeprefix("with self-pairs "))
            assert consistency.printed_by_script({"value": one.value}) == pytest.approx(
                printed, abs=0.011
            )


def test_each_size_is_judged_by_itself_whatever_the_number_of_runs() -> None:
    def size(script: float, top: float) -> dict[str, Any]:
        both = ([{"value": x, "low": None, "high": None, "runs": [x] * 3}] for x in (script, top))
        return dict(zip(("script", "by_index"), both, strict=True))

    found = ConsistencyStudy().reproduced({"sizes": {"30": size(0.73, 0.6), "50": size(0.5, 0.86)}})
    rows = {name: finding(ConsistencyStudy().published[name], one) for name, one in found.items()}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "top-30": "not judged",
        "script-30": "agrees",
        "top-50": "not judged",
        "script-50": "differs",
    }
    assert "with 5 self-pairs of 15 0.820" in rows["script-30"]["note"]
    assert all(row["flaw"] for row in rows.values())


def test_one_run_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(UsageError, match=r"compares runs and was given --seeds 1: give at least 2"):
        ConsistencyStudy().check(StudyOptions(seeds=1))
    ConsistencyStudy().check(StudyOptions(quick=True))


def test_vectors_whose_order_is_swapped_are_found_by_matching() -> None:
    values = torch.arange(N, 0, -1).double()
    swapped = values.clone()
    swapped[:2] = values[:2].flip(0)
    eigs = [eigendecompose_all(planted(one), k=consistency.TOP) for one in (values, swapped)]
    by_index, space = consistency.overlaps(torch.stack([eig.eigenvectors for eig in eigs]))
    assert by_index[:3, 0, 1].tolist() == pytest.approx([0, 0, 1])
    assert space[0, 1] == pytest.approx(1)
    cosines, chance = consistency.match_between_runs(eigs)
    assert cosines[0, 1] == cosines[1, 0] == pytest.approx(1)
    assert chance < 0.6


def test_other_classes_of_other_runs_are_a_level_of_chance() -> None:
    same = torch.eye(N, dtype=torch.float64)[None, None, :2].expand(3, 2, 2, N)
    assert consistency.other_classes(same) == pytest.approx([1, 1])
    apart = torch.stack([torch.eye(N)[:2], torch.eye(N)[2:4]])[None].expand(3, 2, 2, N).double()
    assert consistency.other_classes(apart) == pytest.approx([0, 0])  # of one class it would be 1


def test_published_vectors_begin_at_the_most_negative_and_are_mapped_to_pixels() -> None:
    values = torch.linspace(-1, 3, N).double()
    values[5] = -7  # the most negative; 3 of the largest |λ| are positive
    model = classifier_of_map(planted(values).to(torch.float32))
    with torch.no_grad():
        model.embed.weight.mul_(torch.linspace(1, 2, N))  # pixels are not orthonormal any more
    vectors = consistency.published_vectors(model)
    assert vectors.shape == (1, consistency.TOP, N)
    assert vectors[0, 0].abs().argmax() == 5
    assert vectors[0, 0].norm() == pytest.approx(1)


def test_from_how_many_vectors_on_a_drop_is_kept() -> None:
    run = {"whole": 0.95, "input": [0.1, 0.9491, 0.94, 0.9495, 0.95]}
    assert truncation.enough(run, 0.1) == 3  # at 1 it is reached and lost again
    assert truncation.enough(run, 5.0) == 1
    assert truncation.enough(run, 100.0) == 0
    assert truncation.enough({"whole": 0.95, "input": [0.1, 0.9]}, 0.1) == 2  # more than are read
    low = {"whole": 0.95, "input": [0.1] * (truncation.MOST + 1)}
    assert truncation.counts_shown([run, low], 0.1) == "3, > 60"


def test_the_page_tells_first_vectors_and_their_space_apart() -> None:
    one = {"value": 0.5, "low": None, "high": None, "runs": [0.5]}
    size = dict.fromkeys(("centred", "all", "assigned", "space"), one) | {"as_published": 0.1}
    size |= {"by_index": [one] * 5, "script": [one]}
    result = {
        "seeds": 2,
        "accuracy": {"30": 0.9},
        "sizes": {"30": size},
        "between": {"30-30": {"first": {**one, "value": 0.25}, "space": {**one, "value": 0.75}}},
        "chance": {"matched": 0.1},
    }
    page = ConsistencyStudy().page({"result": result})
    first, space = (page.index(f"\n| 30 | {value} |\n") for value in ("0.250", "0.750"))
    assert page.index("First eigenvector between sizes") < first
    assert first < page.index("Space of the first 10") < space


def test_answers_by_count_end_at_the_whole_model() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    f = QuadraticMap(BilinearTensor(draw(3, 8), draw(8, N), draw(8, N)))
    x = draw(50, N)
    y = f(x).argmax(dim=1)
    curve = truncation.by_count(eigendecompose_all(f), x, y)
    assert len(curve) == truncation.MOST + 1
    assert curve[0] == 0  # all logits are zero, which is no answer
    assert curve[1] < 1
    assert curve[-1] == 1


def test_studies_share_their_recipes_and_a_pass_holds_all_sizes() -> None:
    options = StudyOptions(full=True)
    recipes = consistency.sized_recipes(options, 3)
    assert {name: recipe.d_hidden for name, recipe in recipes.items()} == {
        str(h): h for h in consistency.SIZES
    }
    assert {(r.epochs, r.weight_decay, r.noise, r.seed) for r in recipes.values()} == {
        (100, 1.0, 0.4, 3)
    }
    assert list(ConsistencyStudy().cells(options)) == [*(f"seed-{s}" for s in range(5)), "pairs"]
