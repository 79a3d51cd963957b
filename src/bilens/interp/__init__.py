"""What weights and data say about the features of a layer: tensors in, frozen records out."""
