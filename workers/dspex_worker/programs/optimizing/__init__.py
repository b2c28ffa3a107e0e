"""Optimize programs, with progress."""
