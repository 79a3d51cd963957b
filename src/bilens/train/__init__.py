"""Training: recipes and loops by kind of model; checkpoints and run folders for all of them."""
