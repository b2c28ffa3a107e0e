"""What the tests of the worker programs run inside a child process, so that the test process never imports dspy."""
