"""What is measured and said of a training while it runs."""
