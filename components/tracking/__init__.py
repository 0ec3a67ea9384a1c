"""Records in MLflow that never stop a run."""
