"""The driver: the command line, which knows tickets and reports."""
