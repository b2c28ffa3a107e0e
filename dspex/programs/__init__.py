"""Programs: what a host calls and a pipeline's steps run; made by kind, routed, optimized, evaluated, saved and loaded.

A program's spec holds its signature, settings and state; `options.routing` decides where it runs.
"""
