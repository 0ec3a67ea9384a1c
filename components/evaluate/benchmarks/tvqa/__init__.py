"""TVQA: five answers to a question about a clip of a television series."""
