"""Any result as a figure in a file: the one function for those who want a picture and no report."""

from pathlib import Path

from statistical_report_generator.document import Figure
from statistical_report_generator.figures.style import save_figure
from statistical_report_generator.kinds import describe
from statistical_report_generator.reading import Given, read_sources
from statistical_report_generator.sections.experiment import ExperimentOptions


def plot_results(results: Given, path: str | Path) -> list[Path]:
    """Draws results as reports draw them; returns the files that were written.

    The first figure goes to `path`. Results with further figures, such as the learning curves of an experiment or the
    layers of a score, have them beside it: "figure.pdf" is followed by "figure-2.pdf".

    Args:
        results: As in `StatisticalReportGenerator.add_results`.
        path: Ends in .pdf, .svg or .png, which is the format.

    Raises:
        FileNotFoundError: When there is nothing.
        ValueError: When nothing is to be drawn of them, or the path ends otherwise.

    Examples:
        >>> import tempfile
        >>> figures = {"actual_sparsity": 0.5, "collapsed_layers": [], "thresholds": {"fc": 0.1}}
        >>> found = {"layer_sparsities": {"fc": 0.5}, **figures}
        >>> [path.name for path in plot_results(found, tempfile.mkdtemp() + "/layers.svg")]
        ['layers.svg']
    """
    target = Path(path)
    options = ExperimentOptions()
    sections = [section for one in read_sources(results) for section in describe(one, options)]
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    if not figures:
        raise ValueError("there must be something to be drawn in the results, but these hold none; see the report")
    files = [target, *(target.with_stem(f"{target.stem}-{number}") for number in range(2, len(figures) + 1))]
    for figure, file in zip(figures, files, strict=True):
        save_figure(figure.draw(), file)
    return files
