"""Stream fields while an LM still writes them."""
