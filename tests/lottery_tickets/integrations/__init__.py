"""Watching trainings of other libraries, with these libraries."""
