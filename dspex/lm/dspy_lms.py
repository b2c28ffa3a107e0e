"""Make an `LM` of a `dspy.LM`, in a host that has imported DSPy; DSPy is never imported here."""

from __future__ import annotations

import sys
from typing import Any

from ..errors import SettingsError
from ..unshown_values import UnshownOptions
from .record import KNOWN, LM
from .sent_options import EXTRA

# Of the connection, and so no members of a request's body.
_CLIENTS = frozenset("api_version azure_ad_token_provider organization project extra_query custom_llm_provider".split())


def is_dspy_lm(given: Any) -> bool:
    """Whether this is a language model of DSPy's, or of a class below one."""
    base = getattr(sys.modules.get("dspy"), "BaseLM", None)
    return isinstance(base, type) and isinstance(given, base)


def lm_of_dspy(given: Any, key: str = "lm") -> LM:
    """Return the LM with the model, options, endpoint and key of a `dspy.LM`.

    Options of names that DSPex does not know are sent as they are. Its callbacks and history stay with it. Requests are
    DSPex's own, under its cache, budgets and limits.

    Raises:
        SettingsError: it is of a class of the user's, or has an engine of its own: no record could do what it does.
        LMUnsupportedFeatureError: it is asked for text completions, or by an API that its provider does not have.
        UnknownName, SettingsError: a provider or option that DSPex does not know.
    """
    _require_plain(given, key)
    options = UnshownOptions({name: value for name, value in given.kwargs.items() if value is not None})
    limit = options.pop("max_completion_tokens", None)
    if limit is not None:
        options["max_tokens"] = limit
    options[EXTRA] = {name: options.pop(name) for name in [*options] if name not in KNOWN | _CLIENTS} | options.get(
        EXTRA, {}
    )
    model = given.model if "/" in given.model else f"openai/{given.model}"  # as DSPy reads it
    return LM(model, model_type=given.model_type, cache=bool(given.cache), retries=given.num_retries, **options)


def _require_plain(given: Any, key: str) -> None:
    dspy: Any = sys.modules["dspy"]
    name = type(given).__name__
    if type(given) is not dspy.LM:
        raise SettingsError(
            f"{key} is a {name}: a language model of a class of your own has no record here. Use it inside a module of "
            f"yours (dspex.module), or give dspex.LM its endpoint.",
            key=key,
        )
    if not isinstance(getattr(given, "engine", "auto"), str):
        raise SettingsError(f"{key} is a dspy.LM with an engine object of its own, which has no record here.", key=key)
    if given.kwargs.get("rollout_id") is not None:
        raise SettingsError(
            f"{key} is a dspy.LM with a rollout_id; give that to the program: using(rollout_id=...).", key=key
        )
