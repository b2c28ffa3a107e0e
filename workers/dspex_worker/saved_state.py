"""Check saved states: they hold the program, never how, where or with whom it is called.

A state is a mapping of parts by their names in the module, or the one part of a bare predictor. DSPy's own load takes
any other key of a part for an attribute of the predictor, so a file could move its endpoint or replace its methods.
The LM of a part, which DSPy's `save` writes, is left out. Pure; the parent asks here for files, workers for specs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

PREDICTOR = frozenset({"traces", "train", "demos", "signature", "lm", "fields"})  # what DSPy's Predict dumps
_GENERATION = frozenset(
    {
        *("temperature", "max_tokens", "max_completion_tokens", "top_p", "top_k", "min_p", "n", "stop", "seed"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "reasoning_effort"),
        *("logprobs", "top_logprobs", "logit_bias"),
    }
)
_OF_DSPYS_MODULES = _GENERATION | {"max_iters", "M"}
_CALLING = frozenset(
    {
        *("lm", "lms", "model", "modellist", "modeltype", "provider", "customllmprovider", "engine", "asyncengine"),
        *("adapter", "config", "supervisor", "implementation", "timeout", "rolloutid", "demos", "allowmarkers"),
        *("idempotent", "session", "usenativefunctioncalling", "cache", "tools", "module", "program", "signature"),
        *("apiversion", "apitype", "organization", "project", "extraquery", "extrabody", "authorization", "auth"),
        *("server", "servers", "port", "proxies", "callbacks", "transport", "httpclient", "modelname", "modelid"),
    }
)
_CALLING_ENDS = (
    *("url", "uri", "apibase", "apikey", "token", "tokenprovider", "endpoint", "headers", "proxy", "host", "hostname"),
    *("accesskey", "secretkey", "privatekey", "signingkey", "authkey", "secret", "password", "passwd", "credential"),
    *("urls", "uris", "apibases", "apikeys", "endpoints", "hosts", "secrets", "passwords", "credentials"),
)
_CALLED = frozenset({"lm", "lms", "llm", "llms", "model", "models"})  # the last word of a key: `judge_lm`, `judgeModel`
_WORD = re.compile(r"[A-Z]*[a-z0-9]+|[A-Z]+")
_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


def stray_keys(state: Mapping[str, Any]) -> list[str]:
    """Return the paths of the keys that are no part of a program."""
    if _is_bare(state):
        return list(_stray_of_part(state, ""))
    found: list[str] = []
    for name, part in state.items():
        if not isinstance(part, Mapping) or (speaks_of_calling(name) and not _is_part(part)):
            found.append(name)
        elif _is_part(part):
            found += _stray_of_part(part, f"{name}.")
        else:
            found += addresses_in(part, f"{name}.")
    return found


def stray_options(module: str, options: Mapping[str, Any]) -> list[str]:
    """Return the names of a module's options that a file may not hold; a user's own module may take any other."""
    is_dspys = ":" not in module
    return [
        name
        for name, value in options.items()
        if (is_dspys and name not in _OF_DSPYS_MODULES) or any(addresses_in({name: value}))
    ]


def kept_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a program's LM calls that a file may hold: how the model generates, not which or where."""
    return {name: value for name, value in config.items() if name in _GENERATION and not any(addresses_in(value, name))}


def addresses_in(value: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of keys, at any depth, that set how or with whom to call something, and of URLs."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if speaks_of_calling(name):
                yield f"{path}{name}"
            else:
                yield from addresses_in(inner, f"{path}{name}.")
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from addresses_in(inner, f"{path}{at}.")
    elif isinstance(value, str) and _ADDRESS.match(value):
        yield path.rstrip(".")


def speaks_of_calling(name: str) -> bool:
    """Return whether a key sets how, where or with whom to call: `api_base`, `x-api-key`, `baseUrl`, `timeout`."""
    plain = re.sub(r"[^a-z0-9]", "", str(name).lower())
    words = _WORD.findall(str(name))
    return plain in _CALLING or plain.endswith(_CALLING_ENDS) or (bool(words) and words[-1].lower() in _CALLED)


def damage(state: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the state's form, or None."""
    parts = {"": state} if _is_bare(state) else {f"{name}.": part for name, part in state.items()}
    for path, part in parts.items():
        if _is_part(part) and (wrong := _damage_of_part(part)):
            return f"{path}{wrong}"
    return None


def without_lms(state: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the state without LMs, traces and training data; and the path of each LM that was there, with its keys."""
    if _is_bare(state):
        part, keys = _without_lm(state)
        return part, [f"lm ({keys})"] if keys else []
    cleaned, dropped = {}, []
    for name, part in state.items():
        cleaned[name], keys = _without_lm(part) if _is_part(part) else (part, "")
        dropped += [f"{name}.lm ({keys})"] if keys else []
    return cleaned, dropped


def _is_bare(state: Mapping[str, Any]) -> bool:
    """Whether a whole state is that of a bare predictor; a module's parts may be called `demos` or `signature` too."""
    signature = state.get("signature")
    return isinstance(state.get("demos"), list) or (isinstance(signature, Mapping) and "instructions" in signature)


def _is_part(value: Any) -> bool:
    """Whether a part is a predictor's, whole or not."""
    return isinstance(value, Mapping) and ("demos" in value or "signature" in value)


def _stray_of_part(part: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from (f"{path}{name}" for name in part if name not in PREDICTOR)
    signature = part.get("signature")
    if isinstance(signature, Mapping):
        yield from (f"{path}signature.{name}" for name in signature if speaks_of_calling(name))


def _damage_of_part(part: Mapping[str, Any]) -> str | None:
    signature, demos = part.get("signature"), part.get("demos")
    if not isinstance(demos, list) or not all(isinstance(demo, Mapping) for demo in demos):
        return "demos is no list of examples"
    if not isinstance(signature, Mapping) or not isinstance(signature.get("instructions"), str):
        return "signature has no instructions"
    fields = signature.get("fields")
    if not isinstance(fields, list) or not all(map(_is_field, fields)):
        return "signature.fields is no list of prefixes and descriptions"
    return None


def _is_field(field: Any) -> bool:
    return isinstance(field, Mapping) and all(isinstance(field.get(key), str) for key in ("prefix", "description"))


def _without_lm(part: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    lm = part.get("lm")
    keys = ", ".join(map(str, lm)) if isinstance(lm, Mapping) else type(lm).__name__
    return {**part, "lm": None, "traces": [], "train": []}, keys if lm else ""
