"""Tests of what users read and paste."""
