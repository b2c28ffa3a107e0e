"""Programs of what a user wrote, and `dspy.MultiChainComparison`."""
