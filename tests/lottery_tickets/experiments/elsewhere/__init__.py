"""Tests of trainings in other processes and on other machines."""
