"""The commands of `lottery-tickets`, one a module: a dataclass whose fields are the options and whose `run` does the work."""
