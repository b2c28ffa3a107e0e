"""Documents of saved programs, and the same with something changed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from dspex.programs.files.program_state import saved_prefix
from dspex.signatures.signature import signature
from dspex.signatures.wire_form import signature_to_wire

QA = signature("question -> answer")
EVIL = "http://127.0.0.1:9/evil"


def saved_part(**changes: Any) -> dict[str, Any]:
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in QA.fields]
    demos = [{"augmented": True, "question": "1+1", "answer": "2"}]
    part = {"traces": [], "train": [], "demos": demos, "lm": None}
    return part | {"signature": {"instructions": "Be brief.", "fields": fields}} | changes


def saved_document(**own: Any) -> dict[str, Any]:
    described = {"format": 1, "module": "dspy.Predict", "signature": signature_to_wire(QA), "options": {}} | own
    return {**saved_part(), "metadata": {"dependency_versions": {}, "dspex": described}}


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "program.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def changed_at(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The document with a value at a path of keys."""
    changed = copy.deepcopy(document)
    inner, (*way, last) = changed, path.split("/")
    for key in way:
        inner = inner[int(key)] if isinstance(inner, list) else inner.setdefault(key, {})
    inner[last] = value
    return changed
