"""What everything stands on: errors, checks and atomic files."""
