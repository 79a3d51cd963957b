"""Training of language models: recipe, tokens, loop, run folder."""
