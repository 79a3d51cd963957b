"""Whole jobs, from a model or a data set to a report: what commands and notebooks call."""
