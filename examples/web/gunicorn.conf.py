"""gunicorn's settings for `wsgi.py`."""

import dspex

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gthread"
threads = 8
timeout = 90  # more than the longest call: gunicorn kills a worker that takes longer
preload_app = True


def post_worker_init(worker):
    """In each of gunicorn's workers, after its fork: have DSPy imported before the first request."""
    dspex.default_supervisor().wait_ready()
