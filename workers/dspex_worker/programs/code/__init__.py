"""Names, classes and values of user code: imported by the pool's rules, or sent by the host."""
