"""Make of a program what its file holds: DSPy's state, where DSPy looks, and ours under `metadata.dspex` (I7). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspex_worker.saved_state import kept_config, stray_options

from ...signatures.wire_form import signature_to_wire
from ..files.saved_adapter import adapter_to_file
from ..files.saved_file import FORMAT, dspys_versions
from .program_spec import ProgramSpec


def program_document(
    program: ProgramSpec, state: Mapping[str, Any], versions: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of its file; `facts` are what an optimization tells of it."""
    known = {key: str(value) for key, value in versions.items() if value is not None}
    withheld = [*stray_options(program.module, program.options), *program.withheld]
    own = {
        "format": FORMAT,
        "module": program.name_shown,
        "signature": None if program.is_open else signature_to_wire(program.signature),
        "tool_names": [tool.name for tool in program.tools],
        "options": {name: value for name, value in program.options.items() if name not in withheld},
        "withheld": withheld,
        "config": kept_config(program.config),
        **adapter_to_file(program.adapter),
        "use_native_function_calling": program.use_native_function_calling,
        "prefix_sha256": program.prefix_sha256,
        **facts,
        "versions": known,
    }
    return {**state, "metadata": {"dependency_versions": dspys_versions(known), "dspex": own}}
