"""Signatures, their fields, the string grammar and the wire form."""
