"""`WatchedTwoStep`: a predictor in two steps that is seen; the second step is shown inside the reading of the first."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from .native_route import NativePredictor
from .two_step_route import TwoStepPredictor
from .watched_predictor import WatchedPredictor


class WatchedTwoStep(WatchedPredictor, TwoStepPredictor):
    """Predicts in two steps for one call, and shows both."""

    @contextlib.contextmanager
    def _parsing(self, text: str) -> Generator[tuple[NativePredictor, dict[str, Any]]]:
        given = {"signature": str(self.signature), "completion": text}
        begun = self._observer.begin("adapter_parse", self.compiled.dspy_adapter, given, parent=self._parent)
        found: dict[str, Any] = {}
        try:
            yield self.inside(self.second, begun.call_id), found
        except BaseException as error:  # also Ctrl-C and a cancel: what has begun is shown to end
            begun.end(None, error)
            raise
        begun.end(found)
