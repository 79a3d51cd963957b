"""Networks that are polynomials of their tokens or inputs, past one layer, read exactly."""
