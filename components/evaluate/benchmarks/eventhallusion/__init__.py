"""EventHallusion: questions of yes or no about events that a model expects rather than sees."""
