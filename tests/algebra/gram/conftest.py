"""Blocks of every size, for all that works in blocks."""

import pytest

from bilens.algebra.gram import inner_products, kernel


@pytest.fixture(params=[1, 2, 3, 4, 100])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of every size, those that do not divide the hidden units too."""
    for module in (inner_products, kernel):
        for name in ("block_size", "rows_within"):
            monkeypatch.setattr(module, name, lambda *_: request.param, raising=False)
    size: int = request.param
    return size
