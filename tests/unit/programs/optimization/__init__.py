"""Unit tests of `dspex/programs/optimization`."""
