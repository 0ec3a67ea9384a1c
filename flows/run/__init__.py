"""One pipeline run as Prefect tasks and MLflow runs."""
