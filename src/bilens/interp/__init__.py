"""Reads features of a layer from weights and data: tensors in, frozen records out."""
