"""Measure a checkpoint on the held-out rows with lmms-eval, in a process of its own."""
