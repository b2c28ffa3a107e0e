"""Replies worded as OpenAI's and Anthropic's endpoints word theirs. Pure."""
