"""Augmentations: their statistics, torchvision as the oracle of the geometry, and the spellings."""

import math

import pytest
import torch
from torch import Tensor

from bilens.base.errors import ShapeError, UsageError
from bilens.data.augment import (
    Augmentation,
    Blur,
    CorrelatedNoise,
    GaussianNoise,
    Rotation,
    SaltAndPepper,
    Translation,
    blur,
    parse_augmentation,
    warp,
)

SHAPE = (9, 12)  # not square, so that rows and columns cannot be confused
ALL = [
    GaussianNoise(0.4),
    SaltAndPepper(0.1),
    CorrelatedNoise(0.3, 4),
    Translation(0.1),
    Rotation(15),
    Blur(0.3, 1.0),
]
NOTHING = [
    GaussianNoise(0),
    SaltAndPepper(0),
    CorrelatedNoise(0, 4),
    Translation(0),
    Rotation(0),
    Blur(0, 0),
]
each = pytest.mark.parametrize("augmentation", ALL, ids=lambda each: type(each).__name__)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(batch: int = 6, shape: tuple[int, int] = SHAPE) -> Tensor:
    return torch.rand(batch, math.prod(shape), generator=seeded(1))


class TestContract:
    @each
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_shape_and_dtype_stay_and_the_input_is_untouched(
        self, augmentation: Augmentation, dtype: torch.dtype
    ) -> None:
        images = random_images().to(dtype)
        before = images.clone()
        changed = augmentation(images, SHAPE, seeded())
        assert changed.shape == images.shape
        assert changed.dtype == dtype
        assert torch.isfinite(changed).all()
        assert torch.equal(images, before)
        assert not torch.equal(changed, images)
        assert changed.data_ptr() != images.data_ptr()

    @each
    def test_a_seed_decides_everything(self, augmentation: Augmentation) -> None:
        images = random_images()
        torch.manual_seed(1)  # the global generator must play no part, and is not moved
        before = torch.get_rng_state()
        first = augmentation(images, SHAPE, seeded(3))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(first, augmentation(images, SHAPE, seeded(3)))
        assert not torch.equal(first, augmentation(images, SHAPE, seeded(4)))

    @each
    def test_equal_images_are_changed_differently(self, augmentation: Augmentation) -> None:
        changed = augmentation(random_images(1).repeat(4, 1), SHAPE, seeded())
        assert len({row.numpy().tobytes() for row in changed}) == 4

    @each
    def test_bfloat16_follows_float32(self, augmentation: Augmentation) -> None:
        images = random_images().bfloat16()
        exact = augmentation(images.float(), SHAPE, seeded())
        changed = augmentation(images, SHAPE, seeded())
        torch.testing.assert_close(changed.float(), exact, atol=0.02, rtol=0.01)

    @pytest.mark.parametrize("augmentation", NOTHING, ids=lambda each: type(each).__name__)
    def test_zero_strength_changes_nothing(self, augmentation: Augmentation) -> None:
        images = random_images()
        changed = augmentation(images, SHAPE, seeded())
        torch.testing.assert_close(changed, images, atol=1e-5, rtol=0)
        assert changed.data_ptr() != images.data_ptr()

    @each
    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.rand(3, 100), r"shape \(3, 100\); \(batch, 108\)"),
            (torch.rand(3, 9, 12), r"use images.flatten\(1\)"),
            (torch.rand(0, 108), "batch of at least 1 was expected"),
            (torch.zeros(3, 108, dtype=torch.uint8), "torch.uint8; a floating-point type"),
        ],
    )
    def test_other_tensors_are_refused(
        self, augmentation: Augmentation, images: Tensor, message: str
    ) -> None:
        with pytest.raises(ShapeError, match=message):
            augmentation(images, SHAPE, seeded())


class TestNoise:
    def test_gaussian_noise_has_its_standard_deviation_and_no_correlation(self) -> None:
        """4,000 x 108 draws: the error of a standard deviation is std / sqrt(2 n) = 0.0004."""
        noise = GaussianNoise(0.4)(torch.zeros(4000, 108), SHAPE, seeded())
        assert noise.std().item() == pytest.approx(0.4, abs=0.002)
        assert noise.mean().item() == pytest.approx(0, abs=0.003)
        correlation = torch.corrcoef(noise.T)
        assert (correlation - torch.eye(108)).abs().max() < 6 / math.sqrt(4000)

    @pytest.mark.parametrize("probability", [0.1, 1.0])
    def test_salt_and_pepper_are_equally_frequent(self, probability: float) -> None:
        images = torch.full((2000, 108), 0.5)
        changed = SaltAndPepper(probability)(images, SHAPE, seeded())
        assert set(changed.unique().tolist()) <= {0.0, 0.5, 1.0}
        for value in (0, 1):  # the error of a share is below sqrt(0.25 / 216,000) = 0.0011
            share = (changed == value).float().mean().item()
            assert share == pytest.approx(probability / 2, abs=0.005)

    @pytest.mark.parametrize("length", [0.01, 1.0, 4.0, 50.0])
    def test_correlated_noise_has_its_standard_deviation_in_every_pixel(
        self, length: float
    ) -> None:
        """Corners included; the error is 0.3 / sqrt(2 * 20,000) = 0.0015 for each pixel."""
        noise = CorrelatedNoise(0.3, length)(torch.zeros(20000, 108), SHAPE, seeded())
        assert (noise.std(dim=0) - 0.3).abs().max() < 0.008
        assert noise.mean(dim=0).abs().max() < 0.012

    @pytest.mark.parametrize("length", [2.0, 4.0])
    def test_the_correlation_falls_to_1_over_e_at_its_length(self, length: float) -> None:
        side = 41  # so that the middle is far from the border
        noise = CorrelatedNoise(1, length)(torch.zeros(4000, side**2), (side, side), seeded())
        field = noise.view(-1, side, side)
        middle = side // 2
        for distance in (1, int(length), 2 * int(length)):
            expected = math.exp(-((distance / length) ** 2))
            for other in (field[:, middle + distance, middle], field[:, middle, middle + distance]):
                pair = torch.stack([field[:, middle, middle], other])
                assert torch.corrcoef(pair)[0, 1].item() == pytest.approx(expected, abs=0.06)

    def test_images_have_independent_correlated_noise(self) -> None:
        noise = CorrelatedNoise(1, 2)(torch.zeros(50, 1600), (40, 40), seeded())
        assert (torch.corrcoef(noise) - torch.eye(50)).abs().max() < 0.35  # about 250 free draws

    @pytest.mark.parametrize("augment", [GaussianNoise(0.4), CorrelatedNoise(0.3, 4)])
    def test_noise_is_added(self, augment: Augmentation) -> None:
        images = random_images()
        noise = augment(torch.zeros_like(images), SHAPE, seeded())
        torch.testing.assert_close(augment(images, SHAPE, seeded()), images + noise)


class TestGeometry:
    @pytest.mark.parametrize("shape", [(28, 28), SHAPE])
    @pytest.mark.parametrize(
        ("degrees", "shift"),
        [(0.0, (3.0, -2.0)), (25.0, (0.0, 0.0)), (-130.0, (0.0, 0.0)), (40.0, (-1.0, 2.0))],
    )
    def test_warp_agrees_with_torchvision(
        self, shape: tuple[int, int], degrees: float, shift: tuple[float, float]
    ) -> None:
        functional = pytest.importorskip("torchvision.transforms.v2.functional")
        from torchvision.transforms import InterpolationMode

        images = random_images(4, shape)
        expected = functional.affine(
            images.view(4, 1, *shape),
            angle=degrees,
            translate=list(shift),
            scale=1.0,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        changed = warp(images, shape, torch.full((4,), degrees), torch.tensor([shift] * 4))
        torch.testing.assert_close(changed, expected.reshape(4, -1), atol=2e-5, rtol=0)

    def test_each_image_is_warped_as_if_it_were_alone(self) -> None:
        images, degrees = random_images(5), torch.tensor([0.0, 10.0, 90.0, -45.0, 180.0])
        shift = torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.0, 2.0], [-1.0, 0.0], [0.2, -0.3]])
        together = warp(images, SHAPE, degrees, shift)
        for i in range(5):
            alone = warp(images[i : i + 1], SHAPE, degrees[i : i + 1], shift[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone)

    def test_a_shift_by_whole_pixels_moves_rows_and_columns(self) -> None:
        images = random_images(2)
        changed = warp(images, SHAPE, torch.zeros(2), torch.tensor([[2.0, -1.0]] * 2))
        expected = torch.zeros(2, *SHAPE)
        expected[:, :-1, 2:] = images.view(2, *SHAPE)[:, 1:, :-2]
        torch.testing.assert_close(changed.view(2, *SHAPE), expected, atol=1e-5, rtol=0)

    def test_translation_is_uniform_up_to_its_share_of_each_side(self) -> None:
        """The centre of gravity of a spot in the middle follows the shift exactly."""
        shape, batch = (21, 41), 4000
        spot = torch.zeros(batch, *shape)
        spot[:, 10, 20] = 1
        changed = Translation(0.2)(spot.flatten(1), shape, seeded()).view(batch, *shape)
        torch.testing.assert_close(changed.sum(dim=(1, 2)), torch.ones(batch))
        down = changed.sum(dim=2) @ torch.arange(-10.0, 11)
        right = changed.sum(dim=1) @ torch.arange(-20.0, 21)
        for shift, most in ((down, 0.2 * 21), (right, 0.2 * 41)):
            assert shift.abs().max() <= most + 1e-3
            assert shift.abs().max() > 0.98 * most
            assert shift.mean().item() == pytest.approx(0, abs=0.05 * most)
            assert shift.std().item() == pytest.approx(most / math.sqrt(3), rel=0.03)
        assert abs(torch.corrcoef(torch.stack([down, right]))[0, 1]) < 0.06

    def test_rotation_is_uniform_up_to_its_angle(self) -> None:
        """The direction of a bar from the centre is the angle."""
        side, batch = 41, 2000
        bar = torch.zeros(batch, side, side)
        bar[:, 20, 25:36] = 1
        changed = Rotation(30)(bar.flatten(1), (side, side), seeded()).view(batch, side, side)
        place = torch.arange(-20.0, 21)
        down, right = changed.sum(dim=2) @ place, changed.sum(dim=1) @ place
        degrees = torch.atan2(down, right).rad2deg()
        assert 29 < degrees.abs().max() < 30.2
        assert degrees.mean().item() == pytest.approx(0, abs=1.2)
        assert degrees.std().item() == pytest.approx(30 / math.sqrt(3), rel=0.03)

    def test_a_full_turn_of_180_degrees_reverses_the_pixels(self) -> None:
        images = random_images(2)
        turned = warp(images, SHAPE, torch.full((2,), 180.0), torch.zeros(2, 2))
        torch.testing.assert_close(turned, images.flip(1), atol=2e-5, rtol=0)


class TestBlur:
    @pytest.mark.parametrize("shape", [(28, 28), SHAPE])
    @pytest.mark.parametrize(("sigma", "kernel_size"), [(0.5, 5), (2.0, 5), (1.0, 3), (0.7, 9)])
    def test_it_agrees_with_torchvision(
        self, shape: tuple[int, int], sigma: float, kernel_size: int
    ) -> None:
        functional = pytest.importorskip("torchvision.transforms.v2.functional")
        images = random_images(3, shape)
        expected = functional.gaussian_blur(
            images.view(3, 1, *shape), [kernel_size] * 2, [sigma] * 2
        ).reshape(3, -1)
        changed = Blur(sigma, sigma, kernel_size)(images, shape, seeded())
        torch.testing.assert_close(changed, expected, atol=1e-5, rtol=0)

    def test_each_image_has_its_own_sigma(self) -> None:
        images, sigma = random_images(3), torch.tensor([0.3, 0.8, 2.0])
        together = blur(images, SHAPE, sigma, 5)
        for i in range(3):
            alone = blur(images[i : i + 1], SHAPE, sigma[i : i + 1], 5)
            torch.testing.assert_close(together[i : i + 1], alone)

    def test_sigma_is_uniform_between_its_bounds(self) -> None:
        """Of a spot, the middle keeps 1 / (1 + 2a)^2 with a = exp(-1 / (2 sigma^2)) for size 3."""
        spot = torch.zeros(4000, 25)
        spot[:, 12] = 1
        middle = Blur(0.5, 1.5, kernel_size=3)(spot, (5, 5), seeded())[:, 12]
        sigma = (-2 * ((middle.rsqrt() - 1) / 2).log()).rsqrt()
        assert 0.499 < sigma.min() < 0.51
        assert 1.49 < sigma.max() < 1.501
        assert sigma.mean().item() == pytest.approx(1, abs=0.02)

    def test_a_kernel_larger_than_the_image_is_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"Images of \(2, 9\).* at most 3 was expected"):
            Blur(1, 1)(torch.rand(1, 18), (2, 9), seeded())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(-0.1), "std must be a finite number of at least 0, got -0.1."),
        (lambda: GaussianNoise(math.nan), "std must be a finite number of at least 0, got nan."),
        (lambda: GaussianNoise(math.inf), "std must be a finite number of at least 0, got inf."),
        (lambda: SaltAndPepper(1.1), "probability must be a finite number from 0 to 1, got 1.1."),
        (lambda: CorrelatedNoise(0.1, 0), "correlation_length must be a finite number of at least"),
        (lambda: CorrelatedNoise(-1, 3), "std must be"),
        (lambda: Translation(1.5), "max_fraction must be a finite number from 0 to 1, got 1.5."),
        (lambda: Rotation(181), "max_degrees must be a finite number from 0 to 180, got 181."),
        (lambda: Blur(-1, 1), "sigma_min must be a finite number from 0 to 1, got -1."),
        (lambda: Blur(2, 1), "sigma_min must be a finite number from 0 to 1, got 2."),
        (lambda: Blur(0, math.inf), "sigma_max must be a finite number of at least 0, got inf."),
        (lambda: Blur(1, 1, 4), "kernel_size must be an odd positive number, got 4."),
        (lambda: Blur(1, 1, -1), "kernel_size must be an odd positive number, got -1."),
    ],
)
def test_parameters_out_of_range_are_refused_at_construction(make, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "augmentation"),
    [
        ("gaussian-noise:0.4", GaussianNoise(0.4)),
        ("salt-and-pepper:0.1", SaltAndPepper(0.1)),
        ("correlated-noise:0.3:4", CorrelatedNoise(0.3, 4)),
        ("translation:0.1", Translation(0.1)),
        (" rotation:15 ", Rotation(15)),
        ("blur:0.5", Blur(0.5, 0.5)),
    ],
)
def test_a_spelling_is_read(text: str, augmentation: Augmentation) -> None:
    assert parse_augmentation(text) == augmentation


UNKNOWN = (
    "is not a known augmentation: use one of gaussian-noise:STD, "
    "salt-and-pepper:PROBABILITY, correlated-noise:STD:LENGTH, translation:MAX_FRACTION, "
    "rotation:MAX_DEGREES, blur:SIGMA."
)
ROTATION = "cannot be read: write rotation:MAX_DEGREES with a number for each word."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, f"{text!r} {UNKNOWN}") for text in ("", "noise:0.4", "Rotation:15", ":3")),
        *(
            (text, f"{text!r} {ROTATION}")
            for text in ("rotation", "rotation:", "rotation:ten", "rotation:1:2")
        ),
        (
            "correlated-noise:0.3",
            "'correlated-noise:0.3' cannot be read: write correlated-noise:STD:LENGTH with a "
            "number for each word.",
        ),
        (
            "rotation:400",
            "'rotation:400': max_degrees must be a finite number from 0 to 180, got 400.0.",
        ),
    ],
)
def test_a_spelling_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_augmentation(text)
    assert str(caught.value) == message
