"""Records what the public interfaces do, and compares two recordings."""
