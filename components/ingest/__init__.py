"""Raw data comes in: one kind of source a file."""
