"""How2QA: four answers to a question about a part of an instructional video."""
