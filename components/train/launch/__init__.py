"""Who starts the ranks: Ray Train or torchrun."""
