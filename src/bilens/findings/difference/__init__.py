"""What differs between two models, layer by layer."""
