"""The commands of `lottery-tickets`, one a module: the fields of a dataclass are the options, `run` does the work."""
