"""Parity: images, sound and files are made, shown and refused as in DSPy: values, texts and error classes."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex

pytestmark = pytest.mark.parity

URI = "data:image/png;base64,AAAA"
SOUND = "data:audio/x-wav;base64,AAAA"
EXPRESSIONS = (
    "Image('http://h/a.png')", f"Image({URI!r})", "Image(url='gs://b/a.png')", "Image({'url': 'http://h/a'})",
    "Image()", "Image(Image('http://h/a'))", "Image('local.png')", "Image(3)",
    "Image('http://h/a', url='http://h/b')", "Image(b'no image')", "Image({'url': 'x', 'more': 1})",
    "Image.from_path(FOLDER + '/a.png')", "Image.from_path('/no')", "Image.from_path(FOLDER)",
    "Image.from_path(FOLDER + '/unnamed')", "Image.from_file(FOLDER + '/a.png')", "Image.from_url(SERVER + '/a.png')",
    "Image.from_url('file:///etc/passwd')", "Image.from_url(SERVER + '/untyped.png')",
    "Image(SERVER + '/a.png', download=True)", "Image(download=True, url='http://h/a')", "Image.from_url('x')",
    "Image(SERVER + '/a.png', download=False)", "Image(verify=False)", "Image(url='http://h/a', other=1)",
    "repr(Image('http://h/a'))", f"repr(Image({URI!r}))", "str(Image('http://h/a'))",
    "Audio(data='AAAA', audio_format='wav')", f"Audio({SOUND!r})", "Audio(b'ab')", "Audio(b'ab', audio_format='mp3')",
    f"Audio({SOUND!r}, audio_format='mp3')", "Audio('x.wav')", "Audio('data:audio/')", "Audio('data:audio/,x')",
    "Audio(1, 2)", "Audio('a', data='b')", "Audio(b'a', sampling_rate=8000)", "Audio(3)", "Audio()",
    "Audio(Audio(b'a'), audio_format='x')", "Audio({'data': 'a', 'audio_format': 'b'})", "Audio({'data': 'a'})",
    "Audio.from_path(FOLDER + '/a.wav')", "Audio.from_path(FOLDER + '/a.png')", "Audio.from_path('/no.wav')",
    "Audio.from_url(SERVER + '/a.wav')", "Audio.from_url(SERVER + '/a.png')", "Audio.from_url('ftp://h/a.wav')",
    "Audio.from_file(FOLDER + '/a.wav')", "repr(Audio(b'ab'))", "str(Audio(b'ab'))", "File(b'ab')",
    "File('data:text/plain;base64,AA')", "File(file_id='f')", "File('x.txt')", "File(3)", "File()", "File(1, 2)",
    "File(b'a', file_data='x')", "File(b'a', filename='n')", "File({'filename': 'n'})", "File({'other': 1})",
    "File(File(file_id='f'), filename='n')", "File(File(file_id='f'), file_id='g')",
    "File.from_bytes(b'a', 'n', 'a/b')", "File.from_path(FOLDER + '/a.txt')",
    "File.from_path(FOLDER + '/unnamed', 'n')", "File.from_path('/no')",
    "File.from_path(FOLDER + '/a.txt', mime_type='x/y')", "File.from_file_id('f', 'n')",
    "File(file_data='x', more=1)", "repr(File(b'ab'))", "repr(File(file_id='f', filename='n'))",
    "repr(File(file_data='plain'))", "str(File(b'ab'))", "History(messages=[{'a': 1}])", "History([{'a': 1}])",
    "History(messages=3)", "History(messages=[{}], other=1)",
)  # fmt: skip
_SHOWN = "(value if isinstance(value, str) else {name: getattr(value, name) for name in type(value).model_fields})"
_THEIRS = f"""
import json, os, sys, warnings
warnings.simplefilter("ignore")
out = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
from dspy import Image, Audio, File, History
FOLDER, SERVER, expressions = json.load(sys.stdin)
found = []
for text in expressions:
    try:
        value = eval(text)
        found.append({_SHOWN})
    except Exception as error:
        found.append(["error", type(error).__name__])
json.dump(found, out); out.flush()
"""


class _Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        kinds = {"/a.png": "image/png", "/a.wav": "audio/x-wav"}
        if self.path in kinds:
            self.send_header("Content-Type", kinds[self.path])
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media")
    for name in ("a.png", "a.wav", "a.txt", "unnamed"):
        (path / name).write_bytes(b"content")
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_media_are_made_and_refused_as_in_dspy(folder: Path, server: str) -> None:
    """parity: 20: every constructor, with sources of each kind, several at once, and none."""
    done = subprocess.run(
        [sys.executable, "-c", _THEIRS],
        input=json.dumps([str(folder), server, EXPRESSIONS]), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    names = {"FOLDER": str(folder), "SERVER": server}
    names |= {name: getattr(dspex, name) for name in ("Image", "Audio", "File", "History")}
    differences = []
    for text, theirs in zip(EXPRESSIONS, json.loads(done.stdout), strict=True):
        ours = _made(text, names)
        if ours != theirs:
            differences.append(f"{text}: DSPy {theirs}, DSPex {ours}")
    assert not differences, "\n".join(differences)


def _made(text: str, names: dict[str, Any]) -> Any:
    try:
        value = eval(text, dict(names))
        shown = eval(_SHOWN, {"value": value})
        return json.loads(json.dumps(shown))
    except Exception as error:
        return ["error", type(error).__name__]


def test_a_redirect_leads_to_no_other_scheme() -> None:
    """unit: what is fetched comes by HTTP or HTTPS."""

    class Away(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/a.png")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing is printed."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Away) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        with pytest.raises((ValueError, OSError)):
            dspex.Image.from_url(f"http://127.0.0.1:{found.server_port}/a.png")
        found.shutdown()
        thread.join()
