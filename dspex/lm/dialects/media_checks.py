"""Refuse images, audio and files that no provider could read, before anything is sent, as DSPy's client does. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import LMUnsupportedFeatureError

if TYPE_CHECKING:
    from ..record import LM

_DATA = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL)


def require_media(lm: LM, messages: Sequence[Mapping[str, Any]]) -> None:
    """Check the images, the audio and the files of messages.

    Raises:
        LMUnsupportedFeatureError: an address or data that is empty, or is no base64.
    """
    for at, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            for place, part in enumerate(content):
                if isinstance(part, dict):
                    require_part(lm, part, f"messages[{at}].content[{place}]")


def require_part(lm: LM, part: Mapping[str, Any], where: str) -> None:
    """Check one block of a message's content.

    Raises:
        LMUnsupportedFeatureError: as `require_media`.
    """
    if fault := _fault(part):
        raise LMUnsupportedFeatureError(f"{where} {fault}", model=lm.model, provider=lm.provider.id)


def _fault(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if kind == "image_url":
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, dict) else given
        return _url_fault(url) if isinstance(url, str) else ""
    if kind == "input_audio":
        given = part.get("input_audio")
        data = given.get("data") if isinstance(given, dict) else None
        return _data_fault(data) if isinstance(data, str) else ""
    return _file_fault(part.get("file")) if kind == "file" else ""


def _file_fault(file: Any) -> str:
    if not isinstance(file, dict) or not (file.get("file_data") or file.get("file_id")):
        return "is a file without content: it needs file_data or file_id."
    data = file.get("file_data")
    if not isinstance(data, str) or not data.startswith("data:"):
        return ""
    head, _, payload = data.partition(",")
    if not head.endswith(";base64") or head == "data:;base64":
        return "holds a data URI that is not data:<media-type>;base64,<payload>."
    return _data_fault(payload)


def _url_fault(url: str) -> str:
    if not url:
        return "is an image without an address."
    if not url.startswith("data:"):
        return ""
    found = _DATA.fullmatch(url)
    return _data_fault(found[2]) if found else "holds a data URI that is not data:<media-type>;base64,<payload>."


def _data_fault(data: str) -> str:
    if not data:
        return "holds no data."
    try:
        base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        return "holds data that is no base64."
    return ""
