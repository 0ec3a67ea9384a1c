"""A model is asked, and what it answers is counted."""
