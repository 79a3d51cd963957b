"""Quadratic maps and their decompositions: tensors in, frozen records out."""
