"""The ways in which `own_lms.Asking` puts its language model to use; importing this imports no DSPy."""

WAYS = (
    *("context", "argument", "predictor.lm", "set_lm", "copy", "config", "direct_call", "configure", "json", "thread"),
    *("executor", "parallel", "awaited"),
)
