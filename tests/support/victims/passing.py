"""A module that passes on what it imported."""

from tests.support.victims.library import mailer as passed_on

__all__ = ["passed_on"]
