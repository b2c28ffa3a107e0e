"""Unit: a version of a user's module says whether its files are the same, and nothing is imported for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dspex.services import code_versions
from dspex.services.code_versions import version_of


def _touch(path: Path, text: str = "", at: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1_000_000 + at, 1_000_000 + at))


def test_a_package_has_the_version_of_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: whichever of its modules is named; what it would import is not run."""
    monkeypatch.syspath_prepend(str(tmp_path))
    _touch(tmp_path / "versioned_package" / "__init__.py", "raise RuntimeError")
    _touch(tmp_path / "versioned_package" / "inner" / "deep.py")
    first = version_of("versioned_package.inner.deep")
    assert first and version_of("versioned_package") == first and "versioned_package" not in sys.modules
    _touch(tmp_path / "versioned_package" / "inner" / "deep.py", at=1)
    second = version_of("versioned_package")
    _touch(tmp_path / "versioned_package" / "inner" / "deep.py", "x = 1", at=1)
    assert len({first, second, version_of("versioned_package")}) == 3


def test_a_module_of_one_file_has_that_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: what lies beside it may be what it imports; in a large folder its own file alone counts."""
    monkeypatch.syspath_prepend(str(tmp_path))
    _touch(tmp_path / "versioned_module.py")
    _touch(tmp_path / "helper.py")
    first = version_of("versioned_module")
    _touch(tmp_path / "helper.py", at=1)
    assert version_of("versioned_module") != first
    monkeypatch.setattr(code_versions, "FILES_MOST", 1)
    alone = version_of("versioned_module")
    _touch(tmp_path / "helper.py", at=2)
    assert version_of("versioned_module") == alone


def test_what_has_no_source_has_no_version() -> None:
    """unit: a built-in, a module that does not exist; an installed one's neighbors do not count."""
    assert version_of("sys") == version_of("no_such_module_of_anybody") == ""
    assert version_of("pytest")
