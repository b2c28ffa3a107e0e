"""Find the parts of DSPy that not every version has, by looking for them and not by version numbers.

DSPy 3.4 brought lm15, its own provider library, with the seam on which requests go through the parent. Where it is
missing, `HAS_LM15` is False, its names stand for nothing, and `chat_requests` carries the requests instead.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from dspy.utils import exceptions as dspy_errors

_CLIENT_KEYS = (
    "api_key, api_base, base_url, headers, extra_headers, timeout, api_version, azure_ad_token_provider, organization, "
    "project, extra_query, custom_llm_provider"
)


def part(module: str, name: str, missing: Any = None) -> Any:
    """Return a name of a module of DSPy's, or `missing` where this version lacks the module or the name."""
    try:
        return getattr(importlib.import_module(module), name, missing)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something else is missing: DSPy is not whole
        return missing


def module_of_dspy(name: str) -> Any:
    """Return a module of DSPy's that this version is known to have."""
    return importlib.import_module(f"dspy.{name}")


HAS_LM15 = importlib.util.find_spec("dspy.lm15") is not None
_TRANSPORTS = "dspy._vendor.lm15.transports"

if TYPE_CHECKING:
    from dspy.clients.capabilities import Capabilities as Capabilities
    from dspy.clients.capabilities import capabilities as capabilities
    from dspy.clients.engines.lm15_engine import AsyncLM15Engine as AsyncLM15Engine
    from dspy.clients.engines.lm15_engine import LM15Engine as LM15Engine
    from dspy.clients.execution import StreamAccumulator as StreamAccumulator
    from dspy.lm15 import Request as Request
    from dspy.lm15 import Response as Response
    from dspy.lm15 import RouterConfig as RouterConfig
    from dspy.lm15 import Usage as Usage
else:
    AsyncLM15Engine = part("dspy.clients.engines.lm15_engine", "AsyncLM15Engine", object)
    LM15Engine = part("dspy.clients.engines.lm15_engine", "LM15Engine", object)
    Request = part("dspy.lm15", "Request")
    Response = part("dspy.lm15", "Response")
    RouterConfig = part("dspy.lm15", "RouterConfig")
    Usage = part("dspy.lm15", "Usage")
    StreamAccumulator = part("dspy.clients.execution", "StreamAccumulator")
    Capabilities = part("dspy.clients.capabilities", "Capabilities")
    capabilities = part("dspy.clients.capabilities", "capabilities")
# By name, because lm15's typing marker inside untyped DSPy makes a type checker lose the rest of DSPy.
TransportResponse: Any = part(_TRANSPORTS, "TransportResponse")
AsyncTransportResponse: Any = part(_TRANSPORTS, "AsyncTransportResponse")
NoAnswer: type[Exception] = part(_TRANSPORTS, "TransportError", dspy_errors.LMTransportError)
CLIENT_KEYS: frozenset[str] = frozenset(part("dspy.clients.backend_selection", "CLIENT_KEYS", _CLIENT_KEYS.split(", ")))
"""The options of `dspy.LM` that say how it connects."""

stream_emitted: Callable[[], Any] = part("dspy.clients.call_context", "stream_emitted", lambda: None)
"""Tell DSPy that some of an answer was shown, so that it does not ask again in another format."""

_adapter_message_call = part("dspy.clients._deprecation", "adapter_message_call")


def as_the_adapters_call(lm: Any, messages: Any) -> AbstractContextManager[None]:
    """Return a block in which DSPy takes a call for its adapter's own, which 3.4 lets pass messages."""
    block: AbstractContextManager[None] = (
        _adapter_message_call(lm, messages) if _adapter_message_call else nullcontext()
    )
    return block


def lm_error_kinds(*names: str) -> tuple[type[dspy_errors.LMError], ...]:
    """Return those of DSPy's error classes that this version has."""
    return tuple(kind for name in names if (kind := getattr(dspy_errors, name, None)) is not None)


def load_model_table() -> None:
    """Read DSPy's table of models, where it has one; 0.1 s and 7 MB."""
    part("dspy.clients.model_metadata", "source_info", lambda: None)()
