"""Eigendecompositions of quadratic forms: the record, the solvers, the way in."""
