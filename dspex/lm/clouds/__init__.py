"""Clouds: which address an account's models have there, and what signs a request. No request is sent from here."""
