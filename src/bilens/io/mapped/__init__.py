"""MLPs in any safetensors file: which tensor is what is said, or guessed and shown."""
