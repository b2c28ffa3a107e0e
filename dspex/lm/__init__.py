"""Language models, natively: the record `LM`, the client that calls it, and what both need."""
