"""A model on the meta device becomes one that trains."""
