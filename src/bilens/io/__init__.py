"""Readers and writers of model files; every write is atomic."""
