"""Save figures. One that cannot be drawn costs only itself."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)


class Figure(Protocol):
    """What matplotlib's figures have; to import them takes a second."""

    def savefig(self, fname: Path, /) -> None:
        """Write the figure to a file."""


def save_figures(folder: Path, figures: Mapping[str, Callable[[], Figure]]) -> None:
    """Draw each figure and save it to ``folder``; log a warning for one that fails, and leave no file of it.

    ``figures`` maps the name of a file to the function that draws it.
    """
    for name, draw in figures.items():
        file = folder / name
        try:
            draw().savefig(file)
        except Exception as error:  # whatever it is, a figure must not cost what is worth more
            file.unlink(missing_ok=True)
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning("cannot draw %s (%s); everything else is written", name, reason)
