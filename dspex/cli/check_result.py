"""The result of one check of `dspex doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""
