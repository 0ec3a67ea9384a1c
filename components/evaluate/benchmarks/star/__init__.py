"""STAR: four answers to a question about a situation in a part of a video."""
