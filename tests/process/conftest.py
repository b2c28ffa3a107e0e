"""Supervisors for the tests of workers, with the leak check on for every test."""

from tests.support.supervisors import hostile, leaves_nothing, supervise

__all__ = ["hostile", "leaves_nothing", "supervise"]
