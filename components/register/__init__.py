"""A model becomes a version, and a champion only where the gate says so."""
