"""Optimize programs in the capped pool."""
