"""Save programs, optimized ones too."""
