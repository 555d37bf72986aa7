"""Trainings in other processes and on other machines, by engines of others."""
