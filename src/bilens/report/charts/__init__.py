"""Charts as inline SVG: one kind of chart a file."""
