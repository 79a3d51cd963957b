"""Guards against a pixel that is called by another row or column than it stands in.

Damage that it notices: rows and columns exchanged, which of square images nobody sees.
"""

import re
from typing import Any

import numpy as np
import pytest
import torch

import bilens as bl
from bilens.api.classifier import certify_model
from bilens.findings.subject import summarise
from bilens.io.loaded_model import LoadedModel
from bilens.report.sections.overview import input_name
from bilens.report.text import LANGUAGES, load_catalogue
from contract.table import cell


def reader_of(pixel: int, shape: tuple[int, int]) -> LoadedModel:
    """A classifier of images that reads one pixel."""
    module = bl.nn.BilinearClassifier(shape[0] * shape[1], 4, 2, bias=True).double()
    with torch.no_grad():
        module.embed.weight[:, torch.arange(module.embed.in_features) != pixel] *= 1e-3
    return LoadedModel(module, "m", "0" * 64, shape, ("no", "yes"), {})


@cell("certify", "own object")
@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("shape", [(2, 7), (7, 2), (3, 3)])
def test_a_pixel_is_named_by_its_row_and_column(shape: tuple[int, int], lang: Any) -> None:
    t, last = load_catalogue(lang), shape[0] * shape[1] - 1
    for pixel in (1, shape[1], last - 1, last):
        row, column = map(int, np.unravel_index(pixel, shape))
        model = reader_of(pixel, shape)
        name = input_name(t, summarise(model), pixel)
        assert name == t("use.pixel", index=str(pixel), row=row, column=column)
    x = torch.rand(20, last + 1, generator=torch.Generator().manual_seed(0)).double()
    page = certify_model(model, (x, torch.arange(20) % 2)).to_html(lang=lang)
    assert name in re.sub(r"<[^>]*>", "", page)
