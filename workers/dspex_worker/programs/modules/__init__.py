"""DSPy modules: made from specs and user code, kept, and called."""
