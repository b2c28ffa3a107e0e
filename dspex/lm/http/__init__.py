"""An HTTP/1.1 client for language model endpoints: one parser, a blocking driver and an asyncio driver.

Why not a library: pyreqwest, the fastest one on offer, spent 155 us of CPU per request (7,500/s at 64 in flight) where
this one spends 34 us (28,000/s), aborts the whole process when Ctrl-C arrives during a blocking call, hangs after a
host fork and, about once in twenty runs, kills the interpreter while it exits. All an LM client needs of HTTP is POST
with keep-alive, chunked replies, TLS and CONNECT.

Not covered: HTTP/2, redirects (an endpoint that redirects a POST with a key is refused as an error status), cookies,
compression (`Accept-Encoding: identity` is sent, as DSPy does).
"""
