"""The kinds of training: images, language, sparse autoencoders, tables."""
