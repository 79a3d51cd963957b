"""Inner products, norms and Gram matrices of bilinear tensors, from their factors."""
