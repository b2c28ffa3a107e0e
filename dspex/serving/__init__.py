"""Serve programs over HTTP and as MCP tools: `dspex.asgi(program)` and `dspex serve`; imported by nothing else."""
