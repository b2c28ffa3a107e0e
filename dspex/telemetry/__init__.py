"""What a supervisor shows to monitoring: Prometheus metrics, OpenTelemetry spans, a loopback port with probes.

Nothing here is imported, and nothing counted, unless it is asked for.
"""
