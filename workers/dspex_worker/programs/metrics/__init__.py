"""Metrics and rewards, as DSPy calls them."""
