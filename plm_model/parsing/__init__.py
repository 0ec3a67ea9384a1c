"""Settings as dataclasses: what their fields may hold, and reading them strictly from mappings. Imports nothing of ours."""
