"""Backdoored and benign adapters of small language models, and what a score without data says."""
