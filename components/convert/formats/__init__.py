"""One written form of a row a file."""
