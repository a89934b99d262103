"""What became of a model: the table, the JSON, progress on the way."""
