"""Predict in this process."""
