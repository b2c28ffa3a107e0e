"""A page that shows a supervisor live: pools, workers, calls, restarts, jobs, spend. Needs the extra `serve`."""
