"""Reports on saved results: statistics, tables, findings in words, figures, pages. Knows no models."""

import lazy_loader

# The generator is loaded when it is used: it takes matplotlib, Jinja2 and typst, and statistics do not.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
