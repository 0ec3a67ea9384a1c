"""VideoHallucer: two questions about a video, of which one asks about what is not in it; both must be answered rightly."""
