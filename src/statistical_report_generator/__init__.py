"""Reports on saved results: statistics, tables, findings in words, figures, pages. Knows no models."""

from typing import Any

import lazy_loader

# The generator is loaded when it is used: it takes matplotlib, Jinja2 and typst, and statistics do not.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has this name
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reports need {error.name}, which is not installed; run: pip install 'lottery-tickets[report]'",
            name=error.name,
        ) from error
