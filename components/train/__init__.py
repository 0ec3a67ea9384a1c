"""Shards become a checkpoint; the loop needs torch and little else."""
