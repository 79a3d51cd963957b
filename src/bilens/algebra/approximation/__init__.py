"""The quadratic approximation of a layer that is not quadratic, under a Gaussian input."""
