"""Tickets and reports together: many analyses of one model, and the command line `lottery-tickets`."""

import lazy_loader

# What analyses need is loaded when it is used: the options and help texts of the command line need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
