"""Contract: the bytes of every kind of message, as they were when protocol 1.0 was fixed (golden_frames.json).

A frame that no longer matches means that old workers cannot read new supervisors: raise the protocol's major version.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from dspex_worker.wire import FrameBuffer, Kind, messages
from tests.support.paths import ROOT
from tests.support.wire import plain_msgpack

GOLDEN = json.loads((ROOT / "tests/support/wire/golden_frames.json").read_text())
DOCUMENT = ROOT / "docs" / "internals" / "wire-protocol.md"
every_frame = pytest.mark.parametrize("golden", GOLDEN, ids=[f"{g['kind']}: {g['note']}" for g in GOLDEN])


def meaning(golden: dict[str, Any]) -> list[Any]:
    return [int(Kind[golden["kind"]]), *_from_json(golden["fields"])]


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"$bytes"}:
            return bytes.fromhex(value["$bytes"])
        return {key: _from_json(item) for key, item in value.items()}
    return value


def test_every_kind_has_a_golden_frame() -> None:
    """contract: DESIGN §7 golden frames."""
    assert {golden["kind"] for golden in GOLDEN} == {kind.name for kind in Kind}


@every_frame
def test_a_message_is_written_as_its_golden_frame(golden: dict[str, Any]) -> None:
    """contract: the bytes on the wire do not change by accident."""
    kind, *fields = meaning(golden)
    assert messages.write(Kind(kind), *fields).hex() == golden["frame"]


@every_frame
def test_a_golden_frame_is_read_as_its_message(golden: dict[str, Any]) -> None:
    """contract: what an old peer sent means what it meant."""
    (body,) = FrameBuffer().feed(bytes.fromhex(golden["frame"]))
    assert messages.read(body) == meaning(golden)


@every_frame
def test_an_independent_decoder_reads_the_golden_frame(golden: dict[str, Any]) -> None:
    """contract: a worker in another language sees the same message."""
    frame = bytes.fromhex(golden["frame"])
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert plain_msgpack.decode(frame[4:]) == meaning(golden)


def test_the_document_lists_exactly_the_kinds_of_the_code() -> None:
    """contract: docs/internals/wire-protocol.md."""
    rows = re.findall(r"^\| (\d+) \| `([A-Z]+)` \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [(kind.value, kind.name) for kind in Kind]


def test_the_document_names_the_fields_of_each_kind_in_number() -> None:
    """contract: as many fields in the table as the code reads."""
    rows = re.findall(r"^\| \d+ \| `([A-Z]+)` \| `\[(.*?)\]` \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    golden = {g["kind"]: len(g["fields"]) for g in GOLDEN}
    assert {name: len([f for f in fields.split(", ") if f]) for name, fields in rows} == golden
