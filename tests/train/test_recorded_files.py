"""Models run on files: what their layers are given, in bounded memory, and R² of other files."""

import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
import keras_files
import onnx_files
from bilens.algebra.approximation.quadratic_fit import SeenRows
from bilens.algebra.approximation.r_squared import interval_over_files
from bilens.api.quadratic_fit import fit_on_inputs
from bilens.base.errors import BilensError, DataError, MissingExtraError, NonFiniteError, UsageError
from bilens.data.sample_files import ModelInput, find_samples
from bilens.findings.hidden_units import read_seen_units
from bilens.io.runner import LayerEntry
from bilens.records.common import FileInterval
from bilens.report.sections.decision_page import looked_lines
from bilens.report.text import load_catalogue
from bilens.train.record_inputs import Reservoir
from builders import randn
from commands import Shell


class Convolutions(nn.Module):
    """A layer of patches, one of channels, and what is no layer before and behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.first, self.second = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 5, 1)
        self.up, self.down = nn.Conv2d(5, 7, 1), nn.Conv2d(7, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.max_pool2d(self.stem(image), 2)
        x = functional.avg_pool2d(self.second(self.first(x).relu()), 2)
        return functional.avg_pool2d(self.down(functional.silu(self.up(x))), 2)


def network() -> Convolutions:
    torch.manual_seed(0)
    return Convolutions().eval()


def images(folder: Path, count: int, side: int = 32) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        image = Image.fromarray(pixels).resize((side + number, side), Image.Resampling.BILINEAR)
        image.save(folder / f"{number}.png")
    return folder


def sound(path: Path, values: np.ndarray, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((values * 32767).round().astype("<i2").tobytes())
    return path


def as_input(path: Path, side: int, scale: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    image = Image.open(path).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(scale(np.asarray(image) / 255).transpose(2, 0, 1)[None]).float()


def split(found: Any, folder: Path) -> dict[str, list[Path]]:
    """Return the files of both parts: their numbers are those of the sorted files of a part."""
    order = torch.randperm(found.data.num_images, generator=torch.Generator().manual_seed(0))
    files, held = sorted(folder.iterdir()), found.about["held_out"]
    names = {"held_out": order[:held], "fit": order[held:]}
    return {part: [files[one] for one in sorted(some.tolist())] for part, some in names.items()}


def hooked(module: nn.Module, part: nn.Module, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        module(x)
    handle.remove()
    return seen[0]


def check_rows(found: Any, folder: Path, scale: Callable[[np.ndarray], np.ndarray]) -> None:
    """Compare all rows with those of hooks of torch, and its own patches."""
    module, name = network(), next(iter(found.sites))
    other = [*found.sites][1]
    for part, files in split(found, folder).items():
        first, second = found.rows(name, part), found.rows(other, part)
        xs = [as_input(file, 32, scale) for file in files]
        maps = [hooked(module, module.first, x) for x in xs]
        patches = [functional.unfold(m, 3, padding=1)[0].T for m in maps]
        assert torch.allclose(first.x, torch.cat(patches), atol=1e-5)
        assert first.files.tolist() == [n for n in range(len(files)) for _ in range(64)]
        points = [hooked(module, module.up, x)[0].flatten(1).T for x in xs]
        assert torch.allclose(second.x, torch.cat(points), atol=1e-5)


def test_a_module_is_run_on_images_and_hooked(tmp_path: Path) -> None:
    folder, module = images(tmp_path / "images", 5), network()
    how: dict[str, Any] = {"size": [32], "normalise": "0.5/0.4/0.3,0.2/0.2/0.1", "held_out": 0.5}
    found = bl.layer_inputs(module, folder, **how)
    assert (found.about["fit"], found.about["held_out"]) == (3, 2)
    check_rows(found, folder, lambda x: (x - [0.5, 0.4, 0.3]) / [0.2, 0.2, 0.1])
    assert not module.first._forward_pre_hooks
    with pytest.raises(UsageError, match="in memory alone"):
        found.store(tmp_path / "kept")


def test_an_onnx_file_gives_what_onnxruntime_gives(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder, x = images(tmp_path / "images", 6), torch.zeros(1, 3, 32, 32)
    path = onnx_files.export(network(), x, tmp_path / "m.onnx", input_names=["image"])
    found = bl.layer_inputs(bl.load(path), folder, normalise="-1..1")
    check_rows(found, folder, lambda x: 2 * x - 1)
    notes = {one.kind: one.values for one in found.data.notes}
    assert notes["seen_images"]["size"] == "32 × 32"
    assert "onnxruntime" in str(notes["seen_rows"]["runner"])
    assert "seen_assumed" not in notes


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_an_archive_of_torch_gives_what_hooks_see(how: str, tmp_path: Path) -> None:
    folder, module = images(tmp_path / "images", 6), network()
    x = torch.zeros(1, 3, 32, 32)
    made: Any = torch.jit.script(module) if how == "script" else torch.jit.trace(module, x)
    made.save(str(tmp_path / "m.pt"))
    loaded = bl.load(tmp_path / "m.pt", trust_pickle=True)
    found = bl.layer_inputs(loaded, folder, size=[32], normalise="-1..1")
    check_rows(found, folder, lambda x: 2 * x - 1)
    notes = {one.kind: one.values for one in found.data.notes}
    assert "TorchScript" in str(notes["seen_rows"]["runner"])


def test_memory_is_bounded_and_rows_are_drawn_evenly() -> None:
    values = torch.arange(40_000.0).reshape(20, 2_000, 1)

    def drawn(seed: int) -> tuple[Tensor, int]:
        kept = Reservoir(LayerEntry("", None, 1), 500, torch.Generator().manual_seed(seed))
        peak = 0
        for number, value in enumerate(values):
            kept.add("x", value, number)
            peak = max(peak, sum(len(one[-1]) for one in kept.parts))
        rows = kept.rows()
        assert torch.equal(rows.x[:, 0], rows.places[:, 0].float())  # in their order
        assert torch.equal(rows.files, (rows.places[:, 0] // 2_000))
        return rows.x[:, 0], peak

    x, peak = drawn(0)
    assert len(x) == 500
    assert peak <= 1500
    assert torch.equal(x, drawn(0)[0])
    kept = Reservoir(LayerEntry("", None, 1), 500, torch.Generator())
    with pytest.raises(NonFiniteError, match="what reaches up"):
        kept.add("up", values[0] * torch.inf, 0)
    means = torch.stack([drawn(seed)[0].mean() for seed in range(40)])
    assert abs(float(means.mean()) - 19_999.5) < 4 * 11_547 / (500 * 40) ** 0.5


def test_rows_of_a_value_are_what_a_layer_reads() -> None:
    value = randn(2, 6, 3)
    assert torch.equal(LayerEntry("", None, 3).rows(value), value.reshape(12, 3))
    assert torch.equal(LayerEntry("", None, 6).rows(value), value.movedim(1, 2).reshape(6, 6))
    assert torch.equal(
        LayerEntry("", None, 18).rows(value, torch.tensor([1])), value[1:].flatten(1)
    )
    assert [LayerEntry("", None, width).count(value) for width in (3, 6, 18)] == [12, 6, 2]
    with pytest.raises(UsageError, match=r"a value of shape \(2, 6, 3\) holds no rows of 4"):
        LayerEntry("", None, 4).rows(value)


def test_copies_are_known_by_their_content(tmp_path: Path) -> None:
    folder = images(tmp_path, 4)
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "read.me").write_text("no image")
    found = bl.layer_inputs(network(), folder)
    assert found.data.num_images == found.about["fit"] + found.about["held_out"] == 4
    notes = {one.kind: one.values for one in found.data.notes}
    assert (notes["seen_files"]["repeated"], notes["seen_left"]["names"]) == (1, "read.me")
    assert notes["seen_assumed"]["scale"] == "0..1"
    twice = images(tmp_path / "twice", 1)
    (twice / "copy.png").write_bytes((twice / "0.png").read_bytes())
    with pytest.raises(DataError, match="is one file of images, or copies of one"):
        bl.layer_inputs(network(), twice)


def test_what_is_given_to_the_model_is_on_one_side(tmp_path: Path) -> None:
    folder = images(tmp_path / "images", 3)
    Image.open(folder / "0.png").save(folder / "0.bmp")
    Image.open(folder / "0.png").save(folder / "0 again.png", compress_level=0)
    found = find_samples(folder, [ModelInput("image", (1, 3, 32, 32))])
    assert [one.name for one in found.files] == ["0 again.png", "1.png", "2.png"]
    assert (found.repeated, len({*found.sha256})) == (2, 3)
    (tmp_path / "arrays").mkdir()
    for number in range(2):
        x = randn(6, 4, seed=number).float().numpy()
        np.save(tmp_path / "arrays" / f"{number}.npy", x)
        np.save(tmp_path / "arrays" / f"{number} by columns.npy", np.asfortranarray(x))
        np.savez(tmp_path / "arrays" / f"{number}.npz", x=x.astype(float))
    found = find_samples(tmp_path / "arrays", [ModelInput("x", (0, 4))])
    assert (len(found.files), found.repeated) == (2, 4)
    for number in range(2):  # one file in two calls, and its calls in two files
        np.savez(tmp_path / "arrays" / f"{number}.npz", x=randn(2, 6, 4, seed=number + 5).numpy())
    assert len(find_samples(tmp_path / "arrays", [ModelInput("x", (0, 4))]).files) == 4


def test_pixels_of_16_bits_are_refused(tmp_path: Path) -> None:
    for number in range(2):
        grey = np.linspace(number, 65535, 256).reshape(16, 16).astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match=r"0.png: has I;16 pixels; expected 8 bits a colour"):
        find_samples(tmp_path, [ModelInput("x", (1, 1, 16, 16))])


def test_whole_numbers_are_given_as_they_are_or_refused(tmp_path: Path) -> None:
    for number in range(2):
        pixels = np.arange(256, dtype=np.uint8).reshape(16, 16) ^ number
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    for dtype in ("uint8", "int16", "int64"):
        samples = find_samples(tmp_path, [ModelInput("x", (1, 1, 16, 16), dtype)])
        (call,) = samples.calls(samples.files[0])
        assert call["x"].dtype == dtype
        assert call["x"].ravel().tolist() == [*range(256)]
    samples = find_samples(tmp_path, [ModelInput("x", (1, 1, 16, 16), "int8")], "-128..127")
    assert next(samples.calls(samples.files[0]))["x"].ravel().tolist() == [*range(-128, 128)]
    for dtype, scale, said in (
        ("uint8", "-1..1", r"-1 to 1, .* holds 0 to 255.*--normalise"),
        ("int8", None, r"0 to 255, .* holds -128 to 127.*--normalise"),
    ):
        with pytest.raises(DataError, match=said):
            find_samples(tmp_path, [ModelInput("x", (1, 1, 16, 16), dtype)], scale)
    for number in range(2):
        (tmp_path / f"{number}.png").unlink()
        np.save(tmp_path / f"{number}.npy", np.array([[number, 300]]))
    with pytest.raises(DataError, match=r"0 to 300, .* holds 0 to 255"):
        find_samples(tmp_path, [ModelInput("x", (1, 2), "uint8")])


def test_r_squared_is_least_squares_on_rows_of_other_files(tmp_path: Path) -> None:
    folder, how = images(tmp_path, 12, 64), {"rows": 300, "layers": ["up"]}
    found = bl.layer_inputs(network(), folder, held_out=0.5, **how)
    fit = fit_on_inputs(found).fits[0]
    layer = bl.from_module(network()).layers["up"].weights(torch.float64)
    x, y = {}, {}
    for part in ("fit", "held_out"):
        rows = found.rows("up", part).x.double()  # type: ignore[arg-type]
        assert len(rows) == 300
        pairs = [rows[:, i] * rows[:, j] for i in range(5) for j in range(i, 5)]
        x[part] = torch.stack([*rows.T, *pairs, torch.ones(300)], dim=1).numpy()
        y[part] = layer(rows).numpy()
    answer, *_ = np.linalg.lstsq(x["fit"], y["fit"], rcond=None)
    lost = ((y["held_out"] - x["held_out"] @ answer) ** 2).sum()
    r2 = 1 - lost / ((y["held_out"] - y["held_out"].mean(axis=0)) ** 2).sum()
    (ceiling,) = (one.quadratic.value for one in fit.ladder if one.fit == "ceiling")
    assert ceiling == pytest.approx(r2, abs=1e-8)
    assert fit.over_files is not None
    assert fit.over_files.files == 6
    assert fit.over_files.low < fit.scores.quadratic.value < fit.over_files.high  # type: ignore[operator]


def test_an_interval_leaves_out_one_file_at_a_time() -> None:
    y, files = randn(60, 3), torch.arange(60) % 7
    predicted = y + randn(60, 3, seed=1) * (1 + files[:, None])

    def r2(kept: Tensor) -> float:
        lost = float((y[kept] - predicted[kept]).square().sum())
        return 1 - lost / float((y[kept] - y[kept].mean(dim=0)).square().sum())

    without = np.array([np.log(1 - r2(files != one)) for one in range(7)])
    error = np.sqrt(6 / 7 * ((without - without.mean()) ** 2).sum())
    found, whole = interval_over_files(y, predicted, files), r2(files >= 0)
    ends = (1 - (1 - whole) * np.exp(sign * 2.4469 * error) for sign in (1, -1))
    assert found == pytest.approx((*ends,), rel=1e-4)
    assert interval_over_files(y, y, files) == (1, 1)
    assert interval_over_files(y, predicted, torch.zeros(60)) is None
    predicted = predicted[:, :3] * 0.9
    for still in (files >= 0, files > 0, files < 0):  # all, all but one, none: each with its noise
        flat = torch.where(still[:, None], 0.1 + 1e-17 * randn(60, 3, seed=2), y)
        assert (interval_over_files(flat, predicted, files) is None) == bool(still.any())


def test_units_are_silent_or_alike_on_what_was_seen_alone() -> None:
    rows = [[1, 0, 0], [1, 0, 1], [0, 1, 0], [-1, 0, 0]]
    up = torch.tensor(rows, dtype=torch.float64)
    layer = bl.MLPWeights(down=torch.ones(2, 4, dtype=torch.float64), up=up, activation="relu")
    x = randn(200, 3).abs() * torch.tensor([1.0, 1.0, 0.0])  # unit 3 is closed, 0 and 1 are alike
    seen = read_seen_units(layer, SeenRows(x[:100], x[100:], ""))
    assert (seen.rows, seen.silent, seen.duplicates) == (200, 1, 1)
    assert (seen.input_rank, seen.hidden_rank, seen.output_rank) == (2, 2, 1)
    other = read_seen_units(layer, SeenRows(randn(100, 3), randn(100, 3, seed=1), ""))
    assert (other.silent, other.duplicates, other.input_rank) == (0, 0, 3)


class Two(nn.Module):
    """A model of two inputs, one of which may do nothing."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3))
        self.scale = scale

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self.mlp(x.cumsum(1) + self.scale * state).cumsum(1)


def test_several_inputs_are_named_and_one_may_be_ignored(tmp_path: Path) -> None:
    for number in range(4):
        x, state = (randn(5, 10, 4, seed=2 * number + one).float().numpy() for one in (0, 1))
        np.savez(tmp_path / f"{number}.npz", x=x, state=state)
    ignored, used = (bl.layer_inputs(Two(scale), tmp_path).rows("mlp") for scale in (0.0, 1.0))
    assert ignored.x.shape == (150, 4)
    files = [np.load(file) for file in split(bl.layer_inputs(Two(0.0), tmp_path), tmp_path)["fit"]]
    expected = np.concatenate([one["x"].cumsum(1).reshape(-1, 4) for one in files])
    assert np.allclose(ignored.x, expected, atol=1e-5)
    assert not torch.equal(ignored.x, used.x)
    np.savez(tmp_path / "4.npz", x=x, other=state)
    with pytest.raises(DataError, match=r"4.npz: holds 'x', 'other'; expected .* 'x'; 'state'"):
        bl.layer_inputs(Two(0.0), tmp_path)


def test_arrays_are_one_call_or_several(tmp_path: Path) -> None:
    ports = ModelInput("x", (0, 3)), ModelInput("state", (2, 1, 4)), ModelInput("rate", (), "int64")
    x, state = randn(6, 5, 3).numpy(), randn(2, 1, 4).numpy()
    np.savez(tmp_path / "several.npz", x=x, state=state, rate=np.int64(7))
    np.savez(tmp_path / "one.npz", x=x[0], state=state, rate=np.int64(8))
    samples = find_samples(tmp_path, ports)
    one, several = ([*samples.calls(path)] for path in samples.files)
    assert (len(one), len(several)) == (1, 6)
    assert np.array_equal(several[4]["x"], x[4].astype(np.float32))
    assert np.array_equal(several[4]["state"], one[0]["state"])
    assert (int(one[0]["rate"]), one[0]["rate"].dtype) == (8, np.int64)
    np.savez(tmp_path / "z.npz", x=x, state=np.stack([state] * 5), rate=np.int64(7))
    with pytest.raises(DataError, match="as many of them one behind the other"):
        [*samples.calls(tmp_path / "z.npz")]
    np.savez(tmp_path / "z.npz", x=x, state=state, rate=7.5)
    with pytest.raises(DataError, match="'rate' is float64"):
        [*samples.calls(tmp_path / "z.npz")]


def test_sound_is_cut_into_windows(tmp_path: Path) -> None:
    values = {n: np.random.default_rng(n).uniform(-1, 1, 1003) for n in range(2)}
    for number, one in values.items():
        sound(tmp_path / f"{number}.wav", one)
    samples = find_samples(tmp_path, [ModelInput("x", (0, 100))])
    (call,) = samples.calls(samples.files[0])
    assert np.allclose(call["x"], values[0][:1000].reshape(10, 100), atol=1e-4)
    assert samples.notes()[0].values["rate"] == 8000
    one_by_one = find_samples(tmp_path, [ModelInput("x", (1, 1, 0))], "0,2", [500])
    calls = [call["x"] for call in one_by_one.calls(samples.files[1])]
    assert [one.shape for one in calls] == [(1, 1, 500)] * 2
    assert np.allclose(calls[0][0, 0], values[1][:500] / 2, atol=1e-4)


def test_an_audit_says_what_was_seen_and_of_which_files(tmp_path: Path) -> None:
    folder, module = images(tmp_path / "images", 14, 64), network()
    report = bl.audit(module, folder, null_samples=3)
    document = report.to_dict()
    one = document["layers"]["readings"][0]
    assert one["fit"]["seen"] is True
    assert one["fit"]["over_files"]["files"] == 7
    assert one["fit"]["assumed_input"].endswith("from 7 files of images that nothing was fitted to")
    assert one["seen"]["rows"] == 14 * 256
    assert document["data"]["num_images"] == 14
    looked = dict(looked_lines(load_catalogue("en"), report.record))["What was looked at"]
    assert any("The scale 0..1 is assumed" in one for one in looked), looked
    for lang, said in (
        ("en", "a unit that gives nothing on them may do so elsewhere"),
        ("ja", "の尺度"),
    ):
        assert said in report.to_html(lang=lang)
    other = bl.layer_inputs(module, folder, seed=1)
    again = bl.audit(module, inputs=other, null_samples=3).to_dict()
    assert again["reproduce"]["identity"] != document["reproduce"]["identity"]
    with pytest.raises(UsageError, match="labels: the model is run on data"):
        bl.audit(module, folder, labels="y")


def custom(folder: Path) -> Any:
    """An ONNX file with an operation that nobody has."""
    tensors = onnx_files.matrices(3, 5, 3)
    nodes = [
        ("Alien", "x", "h", {"domain": "of.nobody"}),
        ("MatMul", "h w0", "a"),
        ("Relu", "a", "b"),
    ]
    return bl.load(onnx_files.write(folder / "m.onnx", [*nodes, ("MatMul", "b w1", "y")], tensors))


BAD: dict[str, tuple[Callable[[Path], Any], type[BilensError], str]] = {
    "nothing": (lambda f: f, DataError, "holds no images"),
    "no folder": (lambda f: f / "none", DataError, "does not exist"),
    "one file": (lambda f: images(f, 1), DataError, "is one file of images"),
    "two kinds": (lambda f: images(sound(f / "a.wav", np.zeros(9)).parent, 2), DataError, "sound"),
    "text": (lambda f: (images(f, 2) / "9.png").write_text("x") and f, DataError, "is no image"),
    "sound": (lambda f: sound(sound(f / "a.wav", np.zeros(9)).parent / "b.wav", np.ones(9)).parent,
              DataError, "sound is one row of floats"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    make, kind, said = BAD[name]
    with pytest.raises(kind, match=said):
        bl.layer_inputs(network(), make(tmp_path))


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = randn(2, 3, 32, 32).float().numpy()
    for name, bad, kind, said in (
        ("nan", good * np.nan, DataError, "'image' holds NaN or infinity"),
        ("wide", good[:, :2], DataError, r"'image' is float32 \(2, 2, 32, 32\); the model reads"),
        ("flat", good[0, 0], DataError, "the model reads 'image', float32"),
        ("small", good[:, :, :2, :2], UsageError, "does not run on 'image'"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "a.npy", good)
        np.save(folder / "b.npy", bad)
        with pytest.raises(kind, match=said):
            bl.layer_inputs(network(), folder)
    with pytest.raises(UsageError, match="arrays are read as they are"):
        bl.layer_inputs(network(), folder, normalise="0..1")
    for scale in ("1..0", "0.5", "0.5,0", "a,b", "1/2,1"):
        with pytest.raises(UsageError, match=r"normalise=.* expected a range"):
            bl.layer_inputs(network(), images(tmp_path / "i", 2), normalise=scale)
    with pytest.raises(DataError, match=r"has 2 numbers a side, and the model reads 3"):
        bl.layer_inputs(network(), tmp_path / "i", normalise=".1/.2,.1/.2")


@pytest.mark.parametrize(
    ("scale", "instead"),
    [
        ("127.5,127.5", "pass 0.5,0.5"),
        ("0,255", "pass 0,1"),
        ("123.675/116.28/103.53,58.395/57.12/57.375", "pass 0.485/0.456/0.406,0.229/0.224/0.225"),
        ("-1,1", "pass them so"),
    ],
)
def test_a_mean_of_another_scale_is_refused_with_what_to_pass(
    scale: str, instead: str, tmp_path: Path
) -> None:
    """All inputs were about -1, and R² was 1.000."""
    with pytest.raises(UsageError, match=f"are of values from 0 to 1, .*{instead}"):
        bl.layer_inputs(network(), images(tmp_path / "i", 2), normalise=scale)


def test_what_runs_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = images(tmp_path / "i", 2)
    np.savez(tmp_path / "m.npz", x=1)
    path = onnx_files.export(network(), torch.zeros(1, 3, 32, 32), tmp_path / "m.onnx")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingExtraError, match=r"onnxruntime.*pip install 'bilens\[run\]'"):
            bl.layer_inputs(bl.load(path), folder)
    bl.save(bl.nn.BilinearClassifier(4, 3, 2), tmp_path / "m")
    with pytest.raises(UsageError, match="nothing here runs a"):
        bl.layer_inputs(bl.load(tmp_path / "m"), folder)


def test_an_operation_that_nobody_has_does_not_run(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match=r"onnxruntime .* does not run it .*leave --data out"):
        bl.layer_inputs(custom(tmp_path), images(tmp_path / "i", 2))


def test_layers_that_read_the_input_itself_are_recorded(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    mlp = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    path = onnx_files.export(mlp, torch.zeros(2, 4), tmp_path / "m.onnx", input_names=["x"])
    (tmp_path / "arrays").mkdir()
    for number in range(4):
        np.save(tmp_path / "arrays" / f"{number}.npy", randn(2, 4, seed=number).float().numpy())
    found = bl.layer_inputs(bl.load(path), tmp_path / "arrays", held_out=0.25)
    (name,) = found.sites
    files = split(found, tmp_path / "arrays")["fit"]
    assert np.array_equal(found.rows(name).x, np.concatenate([np.load(file) for file in files]))


def test_constant_outputs_of_files_have_no_interval(tmp_path: Path) -> None:
    module, folder = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), tmp_path / "x"
    with torch.no_grad():
        module[0].bias -= 100  # no unit gives anything on such inputs
    folder.mkdir()
    for number in range(4):
        np.save(folder / f"{number}.npy", randn(40, 4, seed=number).float().numpy())
    (fit,) = fit_on_inputs(bl.layer_inputs(module, folder, held_out=0.5)).fits
    assert fit.over_files == FileInterval(2, None, None)


def test_the_command_line_runs_a_model_on_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bilens = Shell(capsys, monkeypatch)
    pytest.importorskip("onnxruntime")
    folder = images(tmp_path / "images", 4)
    path = onnx_files.export(network(), torch.zeros(1, 3, 32, 32), tmp_path / "m.onnx")
    done = bilens("fit", path, "--data", folder, "--normalise", "0..255", "--rows", 50)
    assert "95% between" in done.out
    assert "judged" in bilens("audit", path, "--data", folder, "--labels", "y").err
    assert "--data that a model is run on" in bilens("audit", path, "--size", 9).err


def test_a_file_of_keras_is_run_up_to_what_its_layers_read(tmp_path: Path) -> None:
    theirs = keras_files.convolutional(padding="same")
    theirs.save(tmp_path / "m.keras")
    folder = images(tmp_path / "images", 4)
    found = bl.layer_inputs(bl.load(tmp_path / "m.keras"), folder, normalise="0..255")
    first, *_, last = found.sites
    files = split(found, folder)["fit"]
    x = torch.cat([as_input(file, 8, lambda x: 255 * x) for file in files])
    patches = functional.unfold(x / 255 - 1, 3, padding=1).mT.flatten(0, 1)
    assert torch.allclose(found.rows(first).x, patches, atol=1e-5)
    expected: Any = x.movedim(1, -1).numpy()
    for layer in theirs.layers[:-2]:  # up to the first dense one
        expected = layer(expected, training=False)
    assert torch.allclose(found.rows(last).x, expected.detach(), atol=1e-4)
