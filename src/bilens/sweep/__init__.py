"""One piece of work for each layer of a large model, on as many machines as there are."""
