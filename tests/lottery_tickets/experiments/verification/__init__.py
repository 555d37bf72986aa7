"""Tests of the modules that re-check a run."""
