"""A file for each engine that exists."""
