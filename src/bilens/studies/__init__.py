"""Studies that repeat published measurements: each one is cells, a document, figures and a page."""
