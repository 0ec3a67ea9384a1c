"""The training engine: a plan of packs, a loader, a plain loop, sharded checkpoints, and Ray Train around them."""
