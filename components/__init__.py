"""The steps, a room each, and what they stand on; nothing here imports `flows` or knows Prefect."""
