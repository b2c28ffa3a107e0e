"""Replies in the form of OpenAI's and Anthropic's endpoints. Pure."""
