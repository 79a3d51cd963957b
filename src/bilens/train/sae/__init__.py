"""Training of sparse autoencoders on the activations of a language model."""
