"""What models are trained on: images and the random changes made to them, texts and their tokens."""
