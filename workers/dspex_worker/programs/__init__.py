"""Run DSPy inside a worker process: the only code that touches it.

`dspy_setup` prepares the process; `commands`, `streaming`, `evaluating` and `optimizing` are what the bridge scripts
call, and the rest serves them: `lms` (language models and their requests), `modules` (programs from specs), `code` (of
the user, imported or sent), `values`, `metrics`, `retrievers`, `dspy_errors`. Importing this package imports nothing;
its modules import DSPy and are imported late, by `dspy_setup.warm`.
"""
