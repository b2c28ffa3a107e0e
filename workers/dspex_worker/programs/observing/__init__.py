"""See the steps of a call: its trace, its prompts, the host's callbacks."""
