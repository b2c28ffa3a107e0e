"""An HTTP/1.1 client for language model endpoints: one parser, a blocking driver and an asyncio driver.

Why not a library: none of those measured survives what hosts do. In a blocking call Ctrl-C is heard when the request
ends, after a host fork they hang, and some end the interpreter with SIGABRT while it exits; and the fastest of them
(wreq) spends about twice the CPU of a request (docs/internals/decisions.md). All an LM client needs of HTTP is POST
with keep-alive, chunked replies, TLS, proxies and sockets. Well-kept libraries do what is apart from that: SOCKS is
python-socks, the race of several addresses on event loops aiohappyeyeballs.

Not covered: HTTP/2, redirects (an endpoint that redirects a POST with a key is refused as an error status), cookies,
asking for compression (`Accept-Encoding: identity` is sent, as DSPy does; what comes compressed is decoded).
"""
