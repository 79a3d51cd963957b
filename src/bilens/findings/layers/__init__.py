"""The audit of a model with many layers, or with layers that are no quadratic map."""
