"""Texts as vectors, and indexes of documents that answer with passages."""
