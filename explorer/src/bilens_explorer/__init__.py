"""The explorer: the models of a folder, their audits and what people said, in a browser."""
