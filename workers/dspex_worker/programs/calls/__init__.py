"""What DSPy's threads and settings know of the call that they run for, and how long its histories hold."""
