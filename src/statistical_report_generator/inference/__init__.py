"""Inference over replicates: intervals, tests on paired differences, many experiments at once."""
