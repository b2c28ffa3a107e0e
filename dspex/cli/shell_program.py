"""Make the program that a command line names, and run it in workers of this process.

`dspex run` is the user's own shell, as `python -m` is: modules are found in the current folder too (or in the folder of
the file that was named), unless Python runs with -P or PYTHONSAFEPATH; and what is named may be imported.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_worker.types.annotation_facts import takes_text

from .. import defaults
from ..config import Config, PoolConfig, load
from ..errors import InvalidInput
from .named_values import NamedValue, read_words
from .program_choice import ProgramChoice
from .shell_command import said_of

if TYPE_CHECKING:
    from ..programs.calling.program import Program


@dataclass(frozen=True, slots=True)
class InputRules:
    """What a program takes: the names, those that must be given, those that are text, whether it takes any other."""

    names: tuple[str, ...]
    required: frozenset[str]
    texts: frozenset[str]
    takes_any: bool = False
    is_single: bool = False  # it gives one field

    def read(self, given: Mapping[str, NamedValue]) -> dict[str, Any]:
        """Return the inputs' values.

        Raises:
            InvalidInput: one is missing, or unknown.
        """
        if missing := [name for name in self.names if name in self.required and name not in given]:
            raise InvalidInput(f"The program needs the input {missing[0]!r}: {self._shown()}.", field=missing[0])
        if unknown := [name for name in given if name not in self.names and not self.takes_any]:
            raise InvalidInput(f"The program takes no input {unknown[0]!r}: {self._shown()}.", field=unknown[0])
        return {name: value.read(as_text=name in self.texts or name not in self.names) for name, value in given.items()}

    def _shown(self) -> str:
        if not self.names:
            return "it takes any" if self.takes_any else "it takes none"
        words = [f"{name}=..." if name in self.required else f"[{name}=...]" for name in self.names]
        return f"it takes {' '.join(words)}"


@dataclass(frozen=True, slots=True)
class ShellProgram:
    """A program of this process."""

    program: Program[Any]

    @property
    def rules(self) -> InputRules:
        """What it takes; of a module of the user's without a signature a worker says it."""
        described = getattr(self.program, "described", None) if getattr(self.program, "is_open", False) else None
        if described is not None:
            return described_rules(described)
        return signature_rules(self.program)

    def call(self, inputs: Mapping[str, Any]) -> Any:
        """Run it and return what it returns."""
        return self.program(**inputs)

    def stream(self, inputs: Mapping[str, Any]) -> Iterator[Any]:
        """Yield chunks, then what it returns."""
        return self.program.stream(**inputs)


def signature_rules(program: Program[Any]) -> InputRules:
    """Return the rules of a program's signature."""
    fields = program.signature.input_fields
    required = frozenset(name for name, field in fields.items() if not field.has_default)
    texts = frozenset(name for name, field in fields.items() if takes_text(field.annotation))
    return InputRules(tuple(fields), required, texts, is_single=len(program.answered.output_fields) == 1)


def described_rules(described: Mapping[str, Any]) -> InputRules:
    """Return the rules of what a worker says of a program."""
    names = tuple(described["inputs"])
    required, texts = frozenset(described["required"]), frozenset(described["texts"])
    return InputRules(names, required, texts, bool(described["takes_any"]))


@contextlib.contextmanager
def own_program(choice: ProgramChoice, *, size: int | None = 1) -> Generator[Program[Any]]:
    """Yield the program; what it starts has ended after the block. `size`: of the pool where no settings say it.

    Raises:
        SettingsError, InvalidInput, UnknownName, SignatureError: it cannot be made.
    """
    with own_workers(choice, size=size):
        yield named_program(choice)


@contextlib.contextmanager
def own_workers(choice: ProgramChoice, *, size: int | None = 1, optimizes: bool = False) -> Generator[None]:
    """Use workers of this command's own in the block, and end them after it; `optimizes`: also those of optimizers.

    Raises:
        SettingsError: they cannot be.
    """
    if choice.program is not None:
        find_modules_of(choice.program)
    said = said_of()
    defaults.configure(config=own_settings(choice, size, optimizes=optimizes), lm=choice.lm)
    try:
        with _output_of_workers(is_quiet=not (said.is_debug or said.is_verbose)):
            yield
    finally:
        defaults.stop_default_supervisor()
        defaults.release_client()


@contextlib.contextmanager
def _output_of_workers(*, is_quiet: bool) -> Generator[None]:
    """Pass what the program prints and logs on to standard error; what befalls workers is said by errors alone."""
    events, output = logging.getLogger("dspex"), logging.getLogger("dspex.worker")
    handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler(sys.stderr)
    output.addHandler(handler)
    output.setLevel(logging.INFO)
    output.propagate = False
    if is_quiet:
        events.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        output.removeHandler(handler)
        output.propagate = True


def named_program(choice: ProgramChoice) -> Program[Any]:
    """Return the program that the options name; nothing is imported or started.

    Raises:
        InvalidInput, UnknownName, SignatureError: it cannot be made.
    """
    from ..programs.factories.loading import load as load_saved
    from ..programs.factories.program_factories import predictor
    from ..programs.modules.module import module

    what = choice.program or ""
    init = {name: value.read(as_text=False) for name, value in read_words(choice.init, what="argument").items()}
    how: dict[str, Any] = {"adapter": choice.adapter, "timeout": choice.timeout}
    how = {name: value for name, value in how.items() if value is not None}
    if "->" in what:
        if choice.signature is not None:
            raise InvalidInput(f"{what!r} is a signature itself: leave --signature out.")
        return predictor(choice.kind or "predict", what, **how, **init)
    if choice.kind is not None:
        raise InvalidInput(f"--kind is for a signature, and {what!r} is none.")
    if what.endswith(".json"):
        _refuse("A saved program", {"--init": choice.init, "--signature": choice.signature})
        program: Program[Any] = load_saved(what).program
        return program.using(**how) if how else program
    return module(module_path(what), signature=choice.signature, **how, **init)


def _refuse(what: str, given: Mapping[str, Any]) -> None:
    for option, value in given.items():
        if value:
            raise InvalidInput(f"{what} takes no {option}.")


def own_settings(choice: ProgramChoice, size: int | None, *, optimizes: bool = False) -> Config:
    """Return the settings of a command's own workers: of a file, or of the pools that it needs.

    Raises:
        SettingsError: they cannot be.
    """
    source = choice.config or os.environ.get("DSPEX_CONFIG") or None
    config = load(source)
    if source is not None:
        return config
    general = next(pool for pool in config.pools if pool.name == "dspy")
    if size is not None and "DSPEX_DSPY_SIZE" not in os.environ:
        general = PoolConfig("dspy", size=size)
    if not optimizes:
        return Config((general,), config.tables, config.source)
    others = (pool for pool in config.pools if pool.name != "dspy")
    alone = (pool if f"DSPEX_{pool.name.upper()}_SIZE" in os.environ else replace(pool, size=1) for pool in others)
    return Config((general, *alone), config.tables, config.source)


def find_modules_of(what: str) -> None:
    """Let this process and its workers find modules where `python` would, for what is named by module or file."""
    folder = str(Path(what.rpartition(":")[0] or what).resolve().parent) if is_file(what) else str(Path.cwd())
    if not sys.flags.safe_path and folder not in sys.path:
        sys.path.insert(0, folder)


def is_file(what: str) -> bool:
    """Return whether the program is named by its file: prog.py:Class."""
    path = what.rpartition(":")[0] or what
    return "->" not in what and (path.endswith(".py") or "/" in path)


def module_path(what: str) -> str:
    """Return package.module:Class for what is named by its file, and as it is for what is named so.

    Raises:
        InvalidInput: there is no such file, or it cannot be imported by a name.
    """
    if not is_file(what):
        if ":" not in what:
            raise InvalidInput(
                f"{what!r} names no program: write package.module:Class, file.py:Class, 'question -> answer', or the "
                f"file of a saved program (.json)."
            )
        return what
    text, _, name = what.rpartition(":") if not what.endswith(".py") else (what, "", "")
    path = Path(text)
    if not path.is_file():
        raise InvalidInput(f"There is no file {text!r}.")
    if not path.stem.isidentifier() or path.suffix != ".py":
        raise InvalidInput(
            f"{path.name!r} cannot be imported: a module's name is letters, digits and _, and ends in .py."
        )
    if not name:
        raise InvalidInput(f"Say what of {text!r} is to run: {_offer(path)}.")
    return f"{path.stem}:{name}"


def _offer(path: Path) -> str:
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        body = []
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = [one.name for one in body if isinstance(one, kinds) and not one.name.startswith("_")]
    return " or ".join(f"{path}:{name}" for name in names[:6]) or f"{path}:Class"
