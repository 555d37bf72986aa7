"""Find, prove and use winning lottery tickets: sparse subnetworks that train as well as the dense network."""

import lazy_loader

__version__ = "0.1.0"  # the packaging reads it here

# The names and where they live stand in __init__.pyi, which type checkers read too; each is loaded when it is used, so
# that options and help texts are at hand without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
