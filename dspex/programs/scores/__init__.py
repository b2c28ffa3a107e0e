"""Scores of examples: intervals, and comparisons row by row. Pure."""
