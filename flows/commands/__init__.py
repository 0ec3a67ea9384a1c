"""One verb of `plm` a file."""
