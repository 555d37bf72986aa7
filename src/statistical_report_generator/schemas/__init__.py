"""What saved results hold: a type for each kind of analysis, checked when they are read."""
