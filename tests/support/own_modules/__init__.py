"""Programs as users of DSPy write them, which know nothing of DSPex, and DSPy in a process beside as their oracle."""
