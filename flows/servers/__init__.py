"""Processes beside a run, and the environment that they are given."""
