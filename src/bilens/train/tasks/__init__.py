"""What can be trained: images, language, sparse autoencoders, tables."""
