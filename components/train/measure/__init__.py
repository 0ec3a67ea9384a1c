"""What is said of a training while it goes on."""
