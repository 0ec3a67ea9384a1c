"""The machine, and processes beside ours: a Ray of our own, the end of a parent."""
