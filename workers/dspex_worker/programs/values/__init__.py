"""Values, outputs and tools as they cross between host and worker."""
