"""What touches DSPy, inside a worker process and nowhere else.

`boot` prepares the process, `run` and `optimize` are what the bridge scripts call, and the rest serves them: `lm` and
`transport` (LM traffic through the parent), `signatures` and `annotations` (classes from specs), `registry` and
`modules` (programs from specs), `tools`, `metrics`, `retrievers`, `values` (wire values), `errors` (failures).
Importing this package imports nothing; its modules import DSPy and are imported late, by `boot.warm`.
"""
