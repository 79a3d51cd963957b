"""What is proven about a classifier: radii, truncation, use of inputs, rounding of weights."""
