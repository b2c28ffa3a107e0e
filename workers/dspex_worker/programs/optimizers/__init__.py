"""What DSPy's optimizers take."""
