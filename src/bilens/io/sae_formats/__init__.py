"""Sparse autoencoders in the layouts of other libraries, read strictly and written."""
