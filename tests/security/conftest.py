"""Fixtures: a private folder for control sockets."""

from __future__ import annotations

from tests.support.service import folder as folder
