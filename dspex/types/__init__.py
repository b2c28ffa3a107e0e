"""Values that users hold: `Prediction`, `Example`, `Tool`, `Image`."""
