"""The command line: parse, call, print. Nothing here imports torch before a command runs."""

from bilens.cli.app import main

__all__ = ["main"]
