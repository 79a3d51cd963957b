"""Names, options and help of the commands: what the help needs, so nothing here imports torch.

A command has three places: its options here, what it does in `bilens.cli.actions`, under the same
name, and its line in `bilens.cli.app`.
"""
