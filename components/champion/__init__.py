"""Which model is the champion now: what the candidate must be better than."""
