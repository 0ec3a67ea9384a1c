"""lmms-eval, in a process of its own; only this folder imports it."""
