"""Options of programs, names of kinds and predictors, and the choice of a route. Pure."""
