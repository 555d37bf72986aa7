"""The trainers of this library, and the callers' own."""
