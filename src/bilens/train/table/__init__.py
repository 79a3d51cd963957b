"""Fitting the quadratic map of a table: a convex problem with one solution, found by Newton."""
