"""Media that a data set refers to: below its root, and nowhere else."""
