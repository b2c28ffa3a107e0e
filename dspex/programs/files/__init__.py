"""Read saved programs' files and states within bounds."""
