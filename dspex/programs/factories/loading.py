"""Load saved programs: JSON files of `Optimized.save` or of DSPy itself (I7)."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from ... import defaults
from ...errors import InvalidInput, SignatureError
from ...lm.given_lms import takes_lms
from ...services.services import services_of
from ...services.tools import named
from ...signatures.annotations import classes_in
from ...signatures.signature import Signature
from ...signatures.wire_form import signature_from_wire
from ..calling.program import Program
from ..files.saved_adapter import adapter_of_file
from ..files.saved_file import SavedFile
from ..modules.module import own_module
from ..modules.module_program import ModuleProgram
from ..options import program_options
from ..options.program_kinds import KINDS
from ..options.program_options import ProgramOptions
from ..options.routing import GENERAL_POOL, NATIVE_MODULES
from ..saving.optimized import Optimized
from ..strategies import STRATEGIES
from .program_factories import predictor

if TYPE_CHECKING:
    from ..calling.program import S

REQUESTS_MOST = {"n": 128, "M": 128, "max_iters": 1000}  # what a file may have paid for by one call
_KEPT = ("prefix_sha256", "use_native_function_calling")  # of a program, in its file


@takes_lms
def load(
    path: str | os.PathLike[str],
    *,
    program: Program[S] | None = None,
    tools: Sequence[Callable[..., Any]] | None = None,
    verify: bool = False,
    **options: Unpack[ProgramOptions],
) -> Optimized[S]:
    """Return the program that `Optimized.save` or DSPy's `save` wrote; options are call options such as `lm`.

    A file holds a program, never how, where or with whom it is called; an LM that DSPy saved in it is left out.
    A file of DSPy's own holds no field names: give the `program` that it was saved from. With `verify` a worker renders
    the prompt's prefix once, now; where it differs from the native one, calls run in workers, and `explain` says so.
    (Files of `Optimized.save` bring that prefix's hash along.) An agent needs its `tools`, or the `program` with them.

    A file has nothing imported that the loader did not name: without `program`, a module of the user's that it names
    must stand in the pool's `imports`.

    Raises:
        InvalidInput: it is no saved program, not one of this program, or one whose tools are not given.
        UnknownName: the file names a module that the workers may not import.
        UnsafeProgram: it holds call options, endpoints, keys or the like; its `keys` say which.
    """
    if program is not None and not isinstance(program, Program):
        raise InvalidInput(
            f"program is {program!r}; it is the dspex.Program that the file was saved from.", field="program"
        )
    return loaded_from(SavedFile.read(path), program=program, tools=tools, verify=verify, **options)


def loaded_from(
    saved: SavedFile,
    *,
    program: Program[S] | None = None,
    tools: Sequence[Callable[..., Any]] | None = None,
    verify: bool = False,
    **options: Unpack[ProgramOptions],
) -> Optimized[S]:
    """Return the program that a file holds; see `load`.

    Raises:
        InvalidInput, UnknownName, UnsafeProgram: as `load`.
    """
    own = saved.own
    if program is not None:
        _require_same(program, own)
    base: Program[S] = program or _described(saved)
    if tools is not None:
        base = replace(base, tools=named(tools), tool_set="")
    _require_tools(saved, base)
    kept = {name: own[name] for name in _KEPT if name in own}
    kept["adapter"] = _adapter(saved, base, options.get("adapter"))
    config = own.get("config", {})
    _require_bounded(saved.path, config)
    loaded = replace(base, state=saved.state or None, config={**config, **base.config}, **kept)
    if options:
        loaded = loaded.using(**options)
    if isinstance(loaded, ModuleProgram):
        loaded.require_importable(loaded.supervisor or defaults.running_supervisor())
    if loaded.module in NATIVE_MODULES:
        _ = loaded.served  # a state that does not fit is refused now, not at the first call
    if verify:
        loaded = replace(loaded, prefix_sha256=rendered_prefix_hash(loaded))
    return Optimized(
        loaded,
        own.get("score"),
        own.get("baseline_score"),
        own.get("trials", []),
        own.get("optimizer", ""),
        saved.versions,
        found_score=own.get("found_score"),
        kept_baseline=own.get("kept_baseline", False),
        trial=own.get("trial"),
    )


def _adapter(saved: SavedFile, base: Program, given: Any) -> Any:
    """Return the adapter: the one that is given, the program's own where the file cannot hold it, or the file's.

    Raises:
        InvalidInput: the program was saved without it, and it is not given.
    """
    own = saved.own
    if given is not None:
        return program_options.checked_adapter(given)
    if withheld := own.get("adapter_withheld"):
        if base.adapter is None:
            raise InvalidInput(
                f"The program {saved.path!r} was saved without its adapter {withheld}, which no file can hold: give "
                f"it, as in dspex.load(path, adapter=...).",
                field="adapter",
            )
        return base.adapter
    named = adapter_of_file(own)
    is_own = named is not None and not isinstance(named, str) and not hasattr(named, "options")
    return base.adapter if is_own and base.adapter is not None else named if "adapter" in own else base.adapter


def _described(saved: SavedFile) -> Program:
    """Return the program that a file of ours describes.

    Raises:
        InvalidInput: it does not say all of it.
    """
    own, name = saved.own, saved.path
    if not own:
        raise InvalidInput(
            f"{name!r} was saved by DSPy itself, which stores no field names: give the program it belongs "
            f"to, as in dspex.load(path, program=dspex.predictor('predict', 'question -> answer'))."
        )
    module = KINDS.get(own["module"], own["module"])
    if module in STRATEGIES or (module not in KINDS.values() and not _is_class_name(module)):
        raise InvalidInput(f"The program {name!r} is damaged: no file can hold a {module!r}.")
    if module not in KINDS.values() and ":" not in module:
        raise InvalidInput(
            f"The program {name!r} holds a {module}, which was no class of a module that can be imported: give the "
            f"program it belongs to, as in dspex.load(path, program=dspex.module({module}))."
        )
    if withheld := own.get("withheld"):
        raise InvalidInput(
            f"The program {name!r} was saved without its option {', '.join(map(str, withheld))}, which says how or "
            f"with whom it works: give the program it belongs to, as in dspex.load(path, program=...)."
        )
    options = own.get("options", {})
    if ":" not in module:  # what the options of a user's own module mean, only that knows
        _require_bounded(name, options)
    if own["signature"] is None:
        if ":" not in module:
            raise InvalidInput(f"The program {name!r} is damaged: a {module} has a signature.")
        return replace(own_module(module, None, (), options), is_named_by_file=True)
    made = predictor(module, _signature(own["signature"], name), **options)
    return replace(made, is_named_by_file=":" in module)


def _require_bounded(name: str, options: Mapping[str, Any]) -> None:
    """Check how many requests a call of the program makes, as far as a file may say it.

    Raises:
        InvalidInput: too many.
    """
    for option, most in REQUESTS_MOST.items():
        asked = options.get(option)
        if isinstance(asked, int | float) and asked > most:
            raise InvalidInput(
                f"The program {name!r} asks for {option}={asked:,}; the limit for a file is {most}. If that is meant, "
                f"give the program it belongs to, as in dspex.load(path, program=...).",
                field=option,
            )


def _require_tools(saved: SavedFile, program: Program) -> None:
    """Check that an agent has the tools that its instructions speak of.

    Raises:
        InvalidInput: one is missing.
    """
    known, named_there = [tool.name for tool in program.tools], saved.own.get("tool_names", [])
    if not all(isinstance(name, str) and name.isprintable() for name in named_there):
        raise InvalidInput(f"The program {saved.path!r} is damaged: its tool_names are no names.")
    if missing := [name for name in named_there if name not in known]:
        raise InvalidInput(
            f"The program {saved.path!r} was saved with the tools {', '.join(missing)}, which are not here: give their "
            f"functions, as in dspex.load(path, tools=[{', '.join(missing)}]).",
            field="tools",
        )


def _is_class_name(module: str) -> bool:
    own = ":" in module or not module.startswith(("dspy.", "dspex."))
    return own and all(part.isidentifier() or part == "<locals>" for part in re.split(r"[.:]", module))


def _signature(wire: Mapping[str, Any], name: str) -> Signature:
    if imported := _imported_types(wire):
        raise InvalidInput(
            f"The program {name!r} is over {', '.join(imported)}, which nothing but its own module describes, and no "
            f"file has anything imported: give the program it belongs to, as in dspex.load(path, program=...)."
        )
    try:
        return signature_from_wire(wire)
    except SignatureError as error:
        raise InvalidInput(f"The program {name!r} is damaged: {error}") from error
    except Exception as error:  # pydantic raises many kinds for a schema that is none
        raise InvalidInput(f"The program {name!r} is damaged: its signature's types cannot be read.") from error


def rendered_prefix_hash(program: Program) -> str | None:
    """Return the hash of what DSPy renders before the inputs: the native side serves only what is the same (I1).

    A worker renders it; None for programs that the native side does not serve.
    """
    if program.module not in NATIVE_MODULES:
        return None
    supervisor, lm = program.supervisor_used, program.lm_used
    services = services_of(supervisor)
    arguments = {
        "spec": program.to_wire(),
        "inputs": _blanks(program.signature),
        "lm": services.lm_record(lm),
        "adapter": program.wire_adapter(lm),
    }
    with program.registered(services):
        rendered = supervisor.call(GENERAL_POOL, "render", arguments)
    text = json.dumps(rendered["messages"][:-1], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _blanks(sig: Signature) -> dict[str, Any]:
    """Return inputs for rendering a prefix: only those that DSPy looks into before it renders."""
    kinds = {name: set(classes_in(field.annotation)) for name, field in sig.input_fields.items()}
    named = {name: {getattr(kind, "dspy_name", "") for kind in of_field} for name, of_field in kinds.items()}
    histories: dict[str, Any] = {name: {"messages": []} for name, names in named.items() if names == {"dspy.History"}}
    return histories | {name: [] for name, names in named.items() if "dspy.Tool" in names}


def _require_same(program: Program, own: Mapping[str, Any]) -> None:
    """Check that a file of ours is of this program; DSPy's own files are checked by their state.

    Raises:
        InvalidInput: it is not, or cannot be read.
    """
    if not own or (program.is_own and own["module"] not in KINDS.values()):
        return  # a class may have another name or place by now: its state says whether it is the same
    try:
        theirs = [(str(field["name"]), field["kind"]) for field in own["signature"]["fields"]]
    except (KeyError, TypeError) as error:
        raise InvalidInput("The program is damaged: its signature's fields cannot be read.") from error
    ours = [(field.name, field.kind) for field in program.signature.fields.values()]
    if own["module"] != program.module or theirs != ours:
        names = ", ".join(name for name, _ in theirs)
        raise InvalidInput(f"The file holds a {own['module']} with the fields {names}; it is not one of {program!r}.")


def _imported_types(wire: Mapping[str, Any]) -> list[str]:
    types = wire.get("types")
    described = types.items() if isinstance(types, Mapping) else ()
    return [name for name, spec in described if isinstance(spec, Mapping) and spec.keys() & {"import", "local"}]
