"""What workers may ask of the host: LM requests, tools, metrics, code."""
