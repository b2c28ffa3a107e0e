"""The wire dialects: pure functions between messages, bytes and answers. No I/O, no state, any thread.

Bytes equal those of DSPy 3.4.1's lm15 engine (checked by tests/parity/test_lm_requests.py): the same key order,
`json.dumps(..., ensure_ascii=False, separators=(",", ":"))`, the same readings of odd messages.
"""
