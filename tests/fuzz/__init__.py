"""Thousands of seeded mutations of what people bring, through the code of `plm ingest … preprocess`: `make fuzz SEED=0`."""
