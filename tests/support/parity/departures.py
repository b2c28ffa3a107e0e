"""Where the outcome of a call may differ from DSPy's, by docs/internals/parity.md and language-model-errors.md.

Each rule says what DSPex must do instead, for the reply that ended the call: an outcome is expected, not excused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.support.parity.oracle import Outcome, is_error

_OF_CHOICE = {429: "LMRateLimitError"}
_UNWORDED = ("no slot on the Chat Completions wire", "has no filename slot")  # how lm15 refuses sound and files
Side = Mapping[str, Any]  # {"bodies", "outcome"}


def departure(call: Mapping[str, Any], ours: Side, theirs: Side) -> str | None:
    """The rule by which this outcome is DSPex's own; None where there is none."""
    made, count = _class(ours["outcome"]), len(ours["bodies"])
    if call.get("streamed") and _asked_again(ours, theirs):
        return "a stream of which nothing was shown is asked for again"
    if count and not theirs["bodies"]:
        return "sound and files that lm15 has no words for" if _is_media_of_ours(ours, theirs) else None
    if not count or list(map(without_heat, ours["bodies"])) != list(map(without_heat, theirs["bodies"][:count])):
        return None
    is_refused = (made, _class(theirs["outcome"])) == ("LMRefusedError", "LMInvalidRequestError")
    if is_refused and call["model"].startswith("gemini/") and " blocked: " in theirs["outcome"][2]:
        return "an answer that Gemini's filter ended"
    last = call["replies"][min(count, len(call["replies"])) - 1]
    found = _by_reply(last, made, bool(call.get("streamed")))
    return found if found and (made, count) != (_class(theirs["outcome"]), len(theirs["bodies"])) else None


def _by_reply(last: Mapping[str, Any], made: str, is_stream: bool) -> str | None:
    if "recorded" in last:
        return "an error's class is more precise" if made == last["recorded"] else None
    if "choice_error" in last:
        wanted = _OF_CHOICE.get(last["choice_error"].get("code"), "LMServerError")
        return "an error inside a choice" if made in (wanted, "LMServerError" if is_stream else wanted) else None
    if "body" in last:
        wanted = "LMEmptyStreamError" if is_stream else "LMProviderError"
        wanted = "LMServerError" if '"error"' in last["body"] else wanted
        return "JSON that is no answer" if made == wanted else None
    is_held_back = "refusal" in last or last.get("finish") == "content_filter"
    if is_held_back and not (last.get("text") or last.get("calls")):
        return "a refusal" if made == "LMRefusedError" else None
    return None


def _is_media_of_ours(ours: Side, theirs: Side) -> bool:
    """Whether DSPy's lm15 refused sound or a file, unsent, that DSPex sends: `test_sent_media.py` compares its form."""
    is_refused = _class(theirs["outcome"]) == "LMUnsupportedFeatureError" and any(
        words in theirs["outcome"][2] for words in _UNWORDED
    )
    return is_refused and all(b'"type":"input_audio"' in body or b'"type":"file"' in body for body in ours["bodies"])


def _asked_again(ours: Side, theirs: Side) -> bool:
    """Whether DSPy gave up after its chat adapter's answer, which DSPex asked for again in JSON, or could not."""
    gave_up = _class(theirs["outcome"]) == "AdapterParseError" and "Adapter ChatAdapter" in theirs["outcome"][2]
    if not gave_up or len(theirs["bodies"]) != 1 or ours["bodies"][:1] != theirs["bodies"]:
        return False
    if len(ours["bodies"]) == 1:
        return _class(ours["outcome"]) == "LMUnsupportedFeatureError"
    return len(ours["bodies"]) == 2 and b"with a JSON object" in ours["bodies"][1]


def without_heat(body: bytes) -> bytes:
    """The body without a temperature, which DSPy also sends to models that take none."""
    return re.sub(rb'"temperature":[0-9.]+,|,?"temperature":[0-9.]+', b"", body)


def _class(found: Outcome) -> str:
    return str(found[1]) if is_error(found) else ""
