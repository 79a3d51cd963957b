"""The parts of the report: from the document to what a template prints."""
