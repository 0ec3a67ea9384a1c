"""A PLM's directory in each layout: Meta's, Hugging Face's and our own, read and written."""
