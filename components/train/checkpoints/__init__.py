"""What is kept of a training, and is whole."""
