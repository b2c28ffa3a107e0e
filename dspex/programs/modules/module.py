"""Make programs of what a user wrote: a dspy.Module's class, a factory of modules, a live module, a plain function.

    qa = dspex.module("myapp.rag:MultiHop", hops=2)   # or the class itself, also of a script or a notebook cell
    out = qa(question="...")

The code is not changed and knows nothing of DSPex. It runs in workers; this process imports neither it nor DSPy, unless
it has done so already.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ... import defaults
from ...adapters.plain_data import is_json
from ...errors import InvalidInput, UnknownName
from ...lm.given_lms import takes_lms
from ...services.code import SentCode, import_path_of
from ...services.code_versions import version_of
from ...services.tools import named
from ...signatures.signature import Signature
from .module_names import module_path
from .module_program import OPEN, ModuleProgram
from .named_signatures import signature_for

if TYPE_CHECKING:
    from ...adapters.given_adapter import AdapterLike
    from ...defaults import LMLike
    from ...pools.supervising import Supervising
    from ...signatures.signature import SignatureLike
    from ..options.program_options import CallConfig


@takes_lms
def module(
    what: Any,
    /,
    *,
    signature: SignatureLike | Mapping[str, Any] | None = None,
    lm: LMLike | None = None,
    lms: Mapping[str, LMLike] | None = None,
    adapter: AdapterLike | None = None,
    config: CallConfig | Mapping[str, Any] | None = None,
    tools: Sequence[Callable[..., Any]] = (),
    timeout: float | None = None,
    idempotent: bool = False,
    isolate: bool = False,
    supervisor: Supervising | None = None,
    **init: Any,
) -> ModuleProgram:
    """Return a program of your own DSPy module, as it is.

    `what` is "package.module:Class" (DSPy's own also as "dspy.ReAct"), a class derived from `dspy.Module`, a live
    module, or a function that returns a module (a factory, also as "package.module:function"); `init` are the
    arguments of the class or factory. A function that returns no module is the program itself, as with
    `dspex.function`: a function is a factory if it says that it returns a module (`-> dspy.Module`), if arguments come
    for it, or if it needs none.

    Workers import by name what they can, also what is in no `imports`: this process's calls may name anything. A class
    of a script or a notebook, and a live module (as it is now), are sent by value; so are arguments that are not plain
    data. A language model in them does not travel: its requests come back to this process, which holds the key. So do
    those of an LM that the code makes (`dspy.LM(...)`). `lms` gives LMs to predictors, by their names in
    `named_predictors()`.

    Without `signature` the program takes what its `forward` or `aforward` takes and returns what that returns; with it,
    inputs and outputs are checked and typed. (A constructor with a parameter `signature` is given it.) `tools` run in
    this process and are given to the constructor. All calls share one instance in each worker, as threads share it in
    DSPy; `isolate=True` gives each call a deep copy. `idempotent=True` lets a call run once more if its worker dies.

    Raises:
        InvalidInput: `what` is nothing that can be called.
        EncodeError, FrameTooLarge: what is sent by value cannot be pickled, or is too large.
        UnknownName, SettingsError, SignatureError: see `predictor`.
    """
    made = _described(what, signature, named(tools), init, supervisor)
    how = {"lm": lm, "lms": lms, "adapter": adapter, "config": config, "timeout": timeout, "supervisor": supervisor}
    given: Any = {name: value for name, value in how.items() if value is not None}
    return _announced(replace(made, isolate=isolate).using(idempotent=idempotent or None, **given))


@takes_lms
def function(
    what: Any,
    /,
    *,
    signature: SignatureLike | Mapping[str, Any] | None = None,
    lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    config: CallConfig | Mapping[str, Any] | None = None,
    timeout: float | None = None,
    idempotent: bool = False,
    supervisor: Supervising | None = None,
) -> ModuleProgram:
    """Return a program that runs a function of yours in a worker, with DSPy configured as for a module.

    `what` is "package.module:function" or the function, a coroutine function too; a lambda, and one of a script or a
    notebook, are sent by value. It is called with the program's inputs, and what it returns is the result. Options and
    errors are those of `module`.
    """
    made = replace(_described(what, signature, (), {}, supervisor), is_function=True)
    how = {"lm": lm, "adapter": adapter, "config": config, "timeout": timeout, "supervisor": supervisor}
    given: Any = {name: value for name, value in how.items() if value is not None}
    return _announced(made.using(idempotent=idempotent or None, **given))


def own_module(name: str, sig: Signature | None, tools: Any, options: Mapping[str, Any], **more: Any) -> ModuleProgram:
    """Return the program of a module that is named "package.module:Class", over a signature; for `predictor`."""
    made = _described(name, sig, tools, options)
    return replace(made, **more)


def _announced(program: ModuleProgram) -> ModuleProgram:
    """Let the pool know what its workers will import: if it has not been started yet, they are forked with it."""
    program.announce(program.supervisor or defaults.running_supervisor())
    return program


def _described(
    what: Any, sig: Any, tools: Any, init: Mapping[str, Any], supervisor: Supervising | None = None
) -> ModuleProgram:
    label, name, code = _named(what)
    source = "" if code is None else _source_of(_main_object(what) if isinstance(what, str) else what)
    plain = {key: value for key, value in init.items() if is_json(value)}
    sent = () if code is None else (code,)
    others, given = {key: value for key, value in init.items() if key not in plain}, None
    if others:
        arguments = SentCode.of(others, f"the arguments of {label}")
        given, sent = arguments.name, (*sent, arguments)
    known = OPEN if sig is None else signature_for(sig, supervisor)
    version = version_of(name.partition(":")[0]) if code is None else ""
    made = ModuleProgram(name, known, plain, tools, label=label, code=sent, source=source, version=version)
    return replace(made, given=given, given_names=tuple(others))


def _named(what: Any) -> tuple[str, str, SentCode | None]:
    """Return a label, the name in the spec, and what is sent by value."""
    if isinstance(what, str):
        what = module_path(what)
        if not what.startswith("__main__:"):
            return what, what, None
        what = _main_object(what)
    if not callable(what):
        raise InvalidInput(
            f"What runs is a dspy.Module, its class, a function, or 'package.module:Class', not {what!r:.100}.",
            field="what",
        )
    path = import_path_of(what)
    if path is not None:
        return path, path, None
    label = getattr(what, "__qualname__", None) or type(what).__qualname__
    code = SentCode.of(what, label)
    return label, code.name, code


def _source_of(what: Any) -> str:
    """Return the source of a class, or of a live module's; empty where it cannot be had."""
    try:
        return inspect.getsource(what if isinstance(what, type) else type(what))
    except (OSError, TypeError):
        return ""


def _main_object(path: str) -> Any:
    found: Any = sys.modules["__main__"]
    for part in path.partition(":")[2].split("."):
        if not hasattr(found, part):
            raise UnknownName("module", path, [f"__main__:{name}" for name in vars(sys.modules["__main__"])])
        found = getattr(found, part)
    return found
