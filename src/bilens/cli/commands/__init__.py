"""One file a command: its options and what it does. Torch is imported when a command runs."""
