"""A WSGI application, as Django's or Flask's is one: a question comes in, DSPy's answer goes out.

    gunicorn --chdir examples/web --config examples/web/gunicorn.conf.py wsgi:application
    curl 'http://127.0.0.1:8000/?question=Why+is+the+sky+blue%3F'

The language model is the one that DSPEX_LM names. Nothing is started here: the process that answers the first request
starts the default supervisor, also under --preload.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import dspex

dspex.configure(config=dspex.Config((dspex.PoolConfig("dspy", size=2),)))
answer = dspex.chain_of_thought("question -> answer", implementation="python", timeout=60)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Serve one request."""
    question = parse_qs(environ["QUERY_STRING"]).get("question", [""])[0]
    try:
        out = answer(question=question)
    except dspex.DspexError as error:
        status, body = "503 Service Unavailable", {"error": str(error), "retryable": error.retryable}
    else:
        status, body = "200 OK", {"answer": out.answer, "route": out.route}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
