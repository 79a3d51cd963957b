"""Canonical polyadic (CP) decomposition of a bilinear tensor, from its factors alone."""
