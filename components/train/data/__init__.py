"""Which examples, in which order, ready in time."""
