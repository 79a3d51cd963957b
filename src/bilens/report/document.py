"""JSON values, as sections take them until they take records."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
