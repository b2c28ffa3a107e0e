"""The memory of workers: measured (`procfs`, `tree_gauge`), monitored (`monitor`), limited (`rlimits`, `cgroup`)."""
