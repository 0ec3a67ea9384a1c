"""Parts that models are built of, and what they cost. Knows no family."""
