"""Guards against classes without names that are counted otherwise than whoever numbered them.

Each was seen to fail: folders 0, 1, 10, 11, 2, … were read in the order of their numbers, and every
usual loader sorts them as texts (accuracy 1.0 told as 0.17); classes 1, 2, 3 of a table, of which
no row had the 3, were read one too far (1.0 told as 0).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import DataError
from bilens.data.own_images import own_images
from contract.table import cell

Image = pytest.importorskip("PIL.Image")
PIXELS = 16


def network(classes: int) -> nn.Module:
    torch.manual_seed(classes)
    return nn.Sequential(nn.Linear(PIXELS, 12), nn.ReLU(), nn.Linear(12, classes))


def rows(net: nn.Module, classes: int) -> tuple[Tensor, Tensor]:
    """Bytes of pictures, and the class that the network gives each; all classes occur."""
    x = torch.randint(0, 256, (4000, PIXELS), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = net(x / 255)
        answers = (made - made.mean(dim=0)).argmax(dim=1)
        net[2].bias -= made.mean(dim=0)  # type: ignore[operator, index]
    kept = torch.cat([(answers == one).nonzero()[:5, 0] for one in range(classes)])
    assert answers[kept].unique().numel() == classes
    return x[kept].to(torch.uint8), answers[kept]


def pictures(folder: Path, x: Tensor, names: list[str]) -> Path:
    for row, (one, name) in enumerate(zip(x, names, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(one.reshape(4, 4).numpy()).save(folder / name / f"{row}.png")
    return folder


def judged(model: Any, data: Any, **options: Any) -> tuple[float, set[str]]:
    found = bl.audit(model, data, **options).record.performance
    assert found is not None
    assert found.classification is not None
    return found.classification.accuracy.value, {one.kind for one in found.notes}


NAMED = {
    "numbers": [f"{k:02}" for k in range(12)],
    "numbers from 1": [f"{k + 1:02}" for k in range(12)],
    "words": ["eel", "Ant", "bee", "cat", "dog"],
}


@pytest.mark.parametrize("kind", NAMED)
@cell("audit", "own object", "other names", "permuted outputs")
def test_folders_are_numbered_as_texts_are_sorted(kind: str, tmp_path: Path) -> None:
    names = sorted(NAMED[kind])
    net = network(len(names))
    x, y = rows(net, len(names))
    folder = pictures(tmp_path / "p", x, [names[k] for k in y])
    accuracy, notes = judged(net, folder)
    assert (accuracy, "folders" in notes) == (1.0, True)
    torchvision = pytest.importorskip("torchvision.datasets")
    assert torchvision.ImageFolder(folder).classes == names
    said = bl.audit(net, folder).record.performance
    assert said is not None
    (note,) = (one for one in said.notes if one.kind == "folders")
    assert note.values["names"] == ", ".join(names)


@cell("audit", "own object", "other names")
def test_folders_that_are_not_all_classes_are_refused(tmp_path: Path) -> None:
    """Those of three classes of four were read by their numbers."""
    net = network(4)
    x, y = rows(net, 4)
    some = y != 1
    folder = pictures(tmp_path / "p", x[some], [f"{k + 1}" for k in y[some]])
    with pytest.raises(DataError, match=r"3 subfolders, .* 4 classes without names"):
        judged(net, folder)
    (folder / "2").mkdir()
    assert judged(net, folder)[0] == 1.0


@cell("audit", "other names", "own object")
def test_folders_of_a_model_whose_classes_have_names_are_names(tmp_path: Path) -> None:
    module = bl.nn.BilinearClassifier(PIXELS, 6, 12, bias=True)
    x = torch.randint(0, 256, (60, PIXELS), generator=torch.Generator().manual_seed(1))
    y = module(x / 255).argmax(dim=1)
    folder = pictures(tmp_path / "p", x.to(torch.uint8), [f"{k}" for k in y])
    bl.save(module, tmp_path / "m", output_names=NAMED["numbers"], input_shape=(4, 4))
    accuracy, notes = judged(bl.load(tmp_path / "m"), folder, null_samples=39)
    assert (accuracy, "folders" in notes) == (1.0, False)


# ---- whole numbers


def written(path: Path, x: Tensor, labels: list[str]) -> Path:
    rows = [[*map(str, row), label] for row, label in zip(x.tolist(), labels, strict=True)]
    lines = [",".join(row) for row in rows]
    header = ",".join([*(f"c{k}" for k in range(PIXELS)), "grade"])
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@cell("audit", "own object", "other names")
def test_numbers_of_a_table_are_positions_where_0_is_among_them(tmp_path: Path) -> None:
    net = network(3)
    x, y = rows(net, 3)
    x = x / 255
    for kept in (y >= 0, y != 2):
        path = written(tmp_path / "0.csv", x[kept], [f"{k}" for k in y[kept]])
        assert judged(net, path, labels="grade")[0] == 1.0
        path = written(tmp_path / "1.csv", x[kept], [f"{k + 1}" for k in y[kept]])
        with pytest.raises(DataError, match=r"no class of the model|from 0 or from 1"):
            judged(net, path, labels="grade")
    for texts in (["1"] * 5 + ["2"] * 5, ["1.0"] * 5 + [" 2"] * 5):
        with pytest.raises(DataError, match="may be counted from 0 or from 1"):
            judged(net, (x[:10], np.array(texts)))


@cell("audit", "own object", "other dtype")
def test_numbers_of_an_array_are_positions_and_said_to_be(tmp_path: Path) -> None:
    net = network(3)
    x, y = rows(net, 3)
    x, y = x[y > 0] / 255, y[y > 0]
    assert judged(net, (x, y)) == (1.0, set())
    assert judged(net, (x.numpy(), y.numpy())) == (1.0, {"positions"})
    np.savez(tmp_path / "d.npz", x=x.numpy(), y=y.numpy())
    assert judged(net, tmp_path / "d.npz") == (1.0, {"keys", "positions"})


@cell("audit", "own object", "other names")
def test_names_of_a_data_set_that_are_numbers_are_none_of_the_models() -> None:
    """Classes called 1, 2 and 3 were read as positions."""
    net = network(3)
    x, y = rows(net, 3)
    x, y = (x / 255)[y < 2], y[y < 2]
    data = own_images(x, y, (x, y), class_names=("1", "2", "3"))
    assert judged(net, data)[0] == 1.0


@cell("audit", "other names")
def test_numbers_that_texts_sort_otherwise_are_refused(tmp_path: Path) -> None:
    """Of 12 folders 0 to 11 one reading is torchvision's, and another that of their values."""
    folder = tmp_path / "pictures"
    for name in range(12):
        (folder / f"{name}").mkdir(parents=True)
        picture = np.full((4, 4), 20 * name, dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{name}" / "a.png")
    with pytest.raises(DataError, match=r"as many digits \(00, 01, …\)"):
        bl.audit(bl.nn.BilinearClassifier(16, 6, 12), folder, null_samples=39)
