"""VSR: whether a sentence about where things are is true of a picture."""
