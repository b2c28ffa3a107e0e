"""Every rule is tried in the four ways to run a pipeline."""

from tests.support.pipelines.ways import go

__all__ = ["go"]
