"""Training data: images and random changes made to them, texts and their tokens, tables."""
