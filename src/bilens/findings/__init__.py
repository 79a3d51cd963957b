"""Findings: what weights, and data if given, say about a model, as plain records."""
