"""Two evaluations become a page and a few numbers; imports no torch."""
