"""Programs: what a host calls, and a pipeline's steps run: handles on DSPy modules, strategies over them, optimizing.

A program knows its signature, settings and state; `router` says where it runs, and it runs there.
"""
