"""How to answer, whatever the model: options, the choice of a token, text as it grows. Knows no family."""
