"""Process: the site builds without a warning, and asks no other host for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dspex
from tests.support.docs.pages import DOCS, ROOT, names

pytest.importorskip("mkdocs", reason="the docs extra is not installed")
pytest.importorskip("material", reason="the docs extra is not installed")

pytestmark = pytest.mark.timeout(900)

LOADED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"'> ]+")
IN_STYLES = re.compile(r"(?:url\(|@import )\s*[\"']?(?:https?:)?//[^\"')]+")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(place)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


def test_every_page_is_in_the_site(site: Path) -> None:
    """process: and none is left out of the navigation."""
    assert [name for name in names() if not (site / name).with_suffix(".html").is_file()] == []
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name for name in names() if f": {name}\n" not in navigation] == []


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    """process: no script, style, font or picture; links that a reader follows are none of these."""
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    styles = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.css")}
    assert len(pages) > 30 and len(styles) > 2
    loaded = [tag for text in pages.values() for tag in LOADED.findall(text) if 'rel="canonical"' not in tag]
    assert loaded + [url for text in styles.values() for url in IN_STYLES.findall(text)] == []


def test_the_api_pages_show_what_the_source_says(site: Path) -> None:
    """process: docstrings arrive in the reference, with what they raise."""
    page = (site / "reference" / "api" / "pools.html").read_text(encoding="utf-8")
    assert "Owns pools of workers" in page
    assert "WorkerBootError" in page
    assert 'id="dspex.Supervisor.call"' in page


def test_every_public_name_is_on_a_page_of_the_reference() -> None:
    """contract"""
    pages = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference" / "api").glob("*.md"))
    assert [name for name in dspex._HOMES if f"\n::: dspex.{name}\n" not in pages] == []


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
@pytest.mark.parametrize("page", ["index.html", "concepts/pools.html"])
def test_the_search_works_on_pages_opened_from_the_file_system(site: Path, tmp_path: Path, page: str) -> None:
    """process: without a server, in a real browser."""
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=20000",
    ]
    done = subprocess.run(
        ["chromium", *options, f"--user-data-dir={tmp_path}", "--dump-dom", f"{(site / page).as_uri()}?q=session"],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert re.search(r"\d+ matching documents", done.stdout)
    assert "sessions.html" in "".join(re.findall(r'<a href="[^"]*" class="md-search-result__link[^>]*>', done.stdout))


def test_pictures_of_the_source_are_there() -> None:
    """contract: what the pages include."""
    assert "<svg" in (DOCS / "assets" / "architecture.svg").read_text(encoding="utf-8")
