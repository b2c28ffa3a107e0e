"""Make programs: by kind, from what callers give, from files."""
