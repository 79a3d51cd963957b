"""Records to JSON, HTML and terminal tables; knows no model and no tensor."""
