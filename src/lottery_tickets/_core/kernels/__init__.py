"""The hot loops, each on several backends with the same bits."""
