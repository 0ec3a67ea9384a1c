"""Losses become new weights."""
