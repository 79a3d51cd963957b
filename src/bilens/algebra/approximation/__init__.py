"""The quadratic map closest to a layer that is none, under a Gaussian input."""
