"""A written form of a row a file: which files the row shows, and the record that it becomes; knows no step and no source."""
