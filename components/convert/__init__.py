"""Annotation rows become conversations."""
