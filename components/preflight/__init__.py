"""What can be known in seconds before anything starts; writes nothing."""
