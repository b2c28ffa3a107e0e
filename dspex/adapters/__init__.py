"""Build prompts and parse answers as DSPy's adapters do, byte for byte, without DSPy.

`compile_signature(sig, "chat")` gives the object that does both. Pure code: no I/O, no threads, no clock.
"""

from .compiled_signature import CompiledSignature, compile_signature

__all__ = ["CompiledSignature", "compile_signature"]
