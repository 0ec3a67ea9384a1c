"""One kind of source a file, behind `origin.Origin`."""
