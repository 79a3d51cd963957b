"""Terminal tables of what the commands found; the table of an audit is in `bilens.report`."""
