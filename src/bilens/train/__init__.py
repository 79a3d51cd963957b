"""Training: one loop, one run folder; what is trained is a task."""
