"""A model directory as an artifact; reading its settings imports no torch."""
