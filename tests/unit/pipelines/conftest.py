"""Every rule is tried in the four ways to run a pipeline, and every test gives back what it took."""

from tests.support.pipelines.ways import go
from tests.support.supervisors import leaves_nothing

__all__ = ["go", "leaves_nothing"]
