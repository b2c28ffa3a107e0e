"""Score programs on examples, and compare the results."""
