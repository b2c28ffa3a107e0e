"""Examples of an optimization or evaluation, and the job over them."""
