"""Show what training changed: the metric before and after, with its uncertainty, and the answers behind it."""
