"""A user's code as careless modules have it: what others define is reachable in it."""
