"""From scores to the bits of what is kept."""
