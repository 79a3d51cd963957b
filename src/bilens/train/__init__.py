"""Training of image classifiers: recipe, loop, checkpoints, run folder."""
