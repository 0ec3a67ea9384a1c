"""The format between preprocess and train: one writer, one reader, one cache."""
