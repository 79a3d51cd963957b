"""What the commands do: load, call, print. Imported when a command runs, since it needs torch."""
