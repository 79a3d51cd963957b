"""Direct interactions: the matrix of a quadratic map between given features, never held whole."""

from __future__ import annotations
