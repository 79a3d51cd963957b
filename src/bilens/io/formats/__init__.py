"""Layers that stay in their files and are read one at a time, on demand."""
