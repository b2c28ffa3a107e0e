"""Call language models natively: the record `LM`, the client, and what both need."""
