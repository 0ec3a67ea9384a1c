"""Annotation files become rows with line numbers, or rejects with a reason; knows no form of a row and no step."""
