"""Graded scores of answers: each metric is a row of one table and gives every question its own score."""
