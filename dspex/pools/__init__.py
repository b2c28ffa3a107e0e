"""Run calls in worker processes: supervisor, pools, sessions, callbacks."""
