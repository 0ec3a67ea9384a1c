"""DREAM-1K: what a description of a short video says of its events, judged event by event (AutoDQ)."""
