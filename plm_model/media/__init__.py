"""Files of pictures and videos become pixels, the same on every machine. Knows no model."""
