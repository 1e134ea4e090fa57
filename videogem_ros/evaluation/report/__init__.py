"""What people look at: a table in the terminal, ``results.json``, and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from videogem_ros.evaluation.metrics import Summary, summarise
from videogem_ros.evaluation.records import Run
from videogem_ros.evaluation.report.cases import Cases, choose_cases
from videogem_ros.evaluation.report.page import render_page
from videogem_ros.evaluation.report.pictures import Gallery
from videogem_ros.evaluation.report.results import read_results, write_results, write_text
from videogem_ros.evaluation.report.terminal import print_table

__all__ = ["Cases", "Gallery", "choose_cases", "print_table", "read_results", "write_report"]

PAGE = "report.html"
RESULTS = "results.json"


def write_report(
    run: Run,
    folder: Path,
    gallery: Gallery | None = None,
    *,
    summaries: Mapping[str, Summary] | None = None,
) -> Path:
    """Writes ``results.json`` and ``report.html``.

    Args:
        run: The finished evaluation; also one without a single record gives a report.
        folder: Where to; made where it is not there. Files of these names are replaced.
        gallery: Gives frame and heatmap of the samples that the page shows. A
            :class:`~videogem_ros.errors.VideoGemError` from it leaves that picture out.
        summaries: Of the run's records, where they are at hand already.

    Returns:
        Path of the page.

    Raises:
        VideoGemError: The files cannot be written.
    """
    summaries = summarise(run.records) if summaries is None else summaries
    write_results(run, summaries, folder / RESULTS)
    cases = choose_cases(run.records, run.main)
    write_text(folder / PAGE, render_page(run, summaries, cases, gallery))
    return folder / PAGE
