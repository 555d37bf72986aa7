"""The pages that people read, run from top to bottom as they would."""
