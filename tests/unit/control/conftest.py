"""A private run folder for the tests of sockets and run files."""

from tests.support.service import folder

__all__ = ["folder"]
