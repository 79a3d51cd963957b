"""Reproductions of published measurements: a study says what it measures and how it is told."""
