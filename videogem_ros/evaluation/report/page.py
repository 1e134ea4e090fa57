"""The result as one HTML page that needs nothing else: no network, no scripts, no other file."""

from __future__ import annotations

from collections.abc import Mapping

import jinja2

from videogem_ros import __version__
from videogem_ros.evaluation.metrics import Summary
from videogem_ros.evaluation.records import Run
from videogem_ros.evaluation.report import content, plots
from videogem_ros.evaluation.report.cases import Cases
from videogem_ros.evaluation.report.figures import (
    METRICS,
    NOTHING,
    timing_table,
    title_of,
)
from videogem_ros.evaluation.report.pictures import Gallery, picture_of
from videogem_ros.evaluation.report.published import SOURCE, published_accuracy

LEFT_OUT_SHOWN = 60
"""Videos or reasons that are listed by name."""

_NOTHING_LEFT_OUT = {
    "missing": "The frames of every sample were there.",
    "skipped": "Every annotation could be used.",
}


def render_page(
    run: Run, summaries: Mapping[str, Summary], cases: Cases, gallery: Gallery | None
) -> str:
    """The page's HTML.

    Args:
        run: The finished evaluation.
        summaries: Of the run's records.
        cases: What the gallery shows.
        gallery: Where its pictures come from; boxes and points on an empty frame where None.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("videogem_ros.evaluation.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(title_of=title_of, clock=_clock, zip=zip)
    return environment.get_template("page.html").render(
        run=run,
        version=__version__,
        metrics=METRICS,
        plots=plots,
        rows=content.headline(run, summaries),
        published=published_accuracy(run.dataset),
        published_source=SOURCE,
        groups=content.groups(run, summaries),
        cases=cases._asdict(),
        picture_of=lambda record: picture_of(record, run.main, gallery),
        ablation=content.ablation(run, summaries),
        layers=content.layers(run),
        classes=content.classes(run, summaries),
        timing=timing_table(run.timing or {}),
        gallery=gallery,
        left_out={"missing": run.missing, "skipped": run.skipped},
        nothing=NOTHING,
        nothing_left_out=_NOTHING_LEFT_OUT,
        shown=LEFT_OUT_SHOWN,
    )


def _clock(time_ns: int) -> str:
    """1:02.50 for a time in a video; seconds for a stamp that counts from 1970."""
    if time_ns > 86_400 * 10**9:
        return f"{time_ns / 1e9:.3f} s"
    minutes, hundredths = divmod(round(time_ns / 1e7), 6000)
    return f"{minutes}:{hundredths / 100:05.2f}"
