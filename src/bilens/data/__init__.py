"""What models are trained on: images and random changes made to them, texts and their tokens."""
