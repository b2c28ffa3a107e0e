"""Score programs and predictions by metrics."""
