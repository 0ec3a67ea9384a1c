"""Chains the steps and shows them; computes nothing."""
