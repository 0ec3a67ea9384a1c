"""CG-Bench with clues: a question about a long video, of which only the parts are shown that hold the answer."""
