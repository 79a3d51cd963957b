"""Benchmarks: ours against the alternative, on the same work, in the same run."""
