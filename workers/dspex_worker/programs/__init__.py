"""Run DSPy inside a worker process: the only code that touches it.

`dspy_setup` prepares the process; `commands`, `field_streams`, `evaluation` and `optimization` are what the bridge
scripts call, and the rest serves them: `worker_lm` and `lm_*` (LM traffic), `signature_classes` (classes from specs, by
`dspex_worker.types`), `modules` and `module_*` (programs from specs), `host_tools`, `metric_calls`, `retrievers`,
`wire_values`, `dspy_errors`. Importing this package imports nothing; its modules import DSPy and are imported late, by
`dspy_setup.warm`.
"""
