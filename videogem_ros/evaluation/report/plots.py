"""Plots as inline SVG.

Colours, strokes and fonts are the style sheet's, by class, so that a plot follows the page into
dark mode and onto paper. Plots inside table cells use percent of the cell's width and no text of
their own: they are as wide as the page lets them be, and the cells beside them say the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from videogem_ros.evaluation.metrics import Estimate

_MARKERS = {
    "uniform": "M-4.5-4.5h9v9h-9z",
    "dynamic": "M0-5.5 5.2 4h-10.4z",
    "static": "M0-6 6 0 0 6-6 0z",
    "static+dynamic": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
}
"""Outline by weighting, about the origin: shapes differ as well as colours."""


@dataclass(frozen=True)
class Scale:
    """A linear axis.

    Attributes:
        low: Value at its start.
        high: Value at its end.
        step: Between ticks.
    """

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Iterable[float], ticks: int = 5) -> Scale:
        """A scale with round ends that holds the values, with about so many steps."""
        known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(known), max(known)
        span = max(high - low, 1e-3)
        power = 10.0 ** math.floor(math.log10(span / ticks))
        step = next(power * n for n in (1, 2, 5, 10) if power * n * ticks >= span)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(first * step, max(last, first + 1) * step, step)

    @property
    def ticks(self) -> list[float]:
        """Values at which the axis is marked."""
        count = round((self.high - self.low) / self.step)
        return [self.low + index * self.step for index in range(count + 1)]

    def place(self, value: float) -> float:
        """Where a value lies between start (0) and end (1)."""
        return (value - self.low) / (self.high - self.low)


WHOLE = Scale(0.0, 1.0, 0.25)
"""Of a fraction, when its distance from 0 and 1 matters."""


SPREAD = (0.1, 0.9)
"""Quantiles between which the layer weights of most samples lie."""


def axis(scale: Scale) -> Markup:
    """Tick labels in percent, for the heading of a column of :func:`interval` or :func:`bar`."""
    svg = _cell()
    for tick in scale.ticks:
        label = child(svg, "text", x=_percent(scale, tick), y="100%", dy=-8, text_anchor="middle")
        label.text = f"{100 * tick:.{0 if scale.step >= 0.01 else 1}f}"
    return _markup(svg)


def interval(
    estimate: Estimate, scale: Scale, kind: str = "", reference: float | None = None
) -> Markup:
    """A marker at the value and a line over the interval, for a table cell.

    Args:
        estimate: Value and interval.
        scale: Of all cells of the column.
        kind: A weighting, which gives shape and colour; the plain shape otherwise.
        reference: Value to draw an upright line at.
    """
    svg = _cell(scale)
    if reference is not None:
        _upright(svg, scale, reference, "reference")
    _whisker(svg, scale, estimate)
    _marker(svg, scale, estimate.value, kind)
    return _markup(svg)


def published(fraction: float, scale: Scale) -> Markup:
    """A hollow marker at a published value, for a table cell."""
    svg = _cell(scale)
    _marker(svg, scale, fraction, "published")
    return _markup(svg)


def bar(estimate: Estimate, scale: Scale = WHOLE) -> Markup:
    """A bar up to the value with a line over the interval, for a table cell."""
    svg = _cell(scale)
    child(svg, "rect", class_="bar", y="50%", width=_percent(scale, estimate.value), height=12)
    _whisker(svg, scale, estimate)
    return _markup(svg)


def layer_weights(
    weights: npt.NDArray[np.float64], reference: Sequence[float], title: str, scale: Scale
) -> Markup:
    """One prompt's layer weights: mean and spread over the samples beside a reference.

    Args:
        weights: (n, L) of n samples.
        reference: L weights, drawn dashed; may be empty.
        title: What is shown, for those who cannot see it; the means are added.
        scale: Of the weights, the same for all prompts.
    """
    left, top, right, bottom = 34.0, 10.0, 312.0, 168.0
    terms: int = weights.shape[1]

    def x(term: int) -> float:
        return left + 10 + term * (right - left - 20) / max(terms - 1, 1)

    def y(weight: float) -> float:
        return bottom - scale.place(weight) * (bottom - top)

    def line(values: Iterable[float], order: Iterable[int]) -> str:
        return " ".join(f"{x(term):.1f},{y(value):.1f}" for term, value in zip(order, values))

    svg = Element("svg", {"class": "layers", "viewBox": "0 0 320 208", "role": "img"})
    mean = weights.mean(axis=0)
    child(svg, "title").text = f"{title}: {', '.join(f'{value:.2f}' for value in mean)}"
    for tick in scale.ticks:
        child(svg, "line", class_="grid", x1=left, x2=right, y1=y(tick), y2=y(tick))
        label = child(svg, "text", x=left - 6, y=y(tick) + 4, text_anchor="end")
        label.text = f"{tick:.{1 if scale.step >= 0.1 else 2}f}"
    for term in range(terms):
        child(svg, "text", x=x(term), y=bottom + 18, text_anchor="middle").text = str(term)
    child(svg, "text", x=(left + right) / 2, y=bottom + 36, text_anchor="middle").text = "term l"

    low, high = np.quantile(weights, SPREAD, axis=0)
    outline = f"{line(low, range(terms))} {line(high[::-1], range(terms - 1, -1, -1))}"
    child(svg, "polygon", class_="spread", points=outline)
    child(svg, "polyline", class_="mean", points=line(mean, range(terms)))
    for term, value in enumerate(mean):
        child(svg, "circle", class_="mean", cx=x(term), cy=y(value), r=3.5)
    if reference:
        child(svg, "polyline", class_="static", points=line(reference, range(terms)))
    return _markup(svg)


def _cell(scale: Scale | None = None) -> Element:
    """An empty plot for a table cell, with the scale's upright lines."""
    svg = Element("svg", {"class": "cell", "aria-hidden": "true"})
    if scale is not None:
        for tick in scale.ticks:
            _upright(svg, scale, tick, "grid")
    return svg


def _upright(svg: Element, scale: Scale, value: float, class_: str) -> None:
    place = _percent(scale, value)
    child(svg, "line", class_=class_, x1=place, x2=place, y2="100%")


def _whisker(svg: Element, scale: Scale, estimate: Estimate) -> None:
    if math.isfinite(estimate.low):
        ends = {"x1": _percent(scale, estimate.low), "x2": _percent(scale, estimate.high)}
        child(svg, "line", class_="whisker", **ends, y1="50%", y2="50%")


def _marker(svg: Element, scale: Scale, value: float, kind: str) -> None:
    place = child(svg, "svg", x=_percent(scale, value), y="50%", overflow="visible")
    outline = _MARKERS.get(kind, _MARKERS["static+dynamic"])
    child(place, "path", class_=f"marker {kind.replace('+', '-')}".strip(), d=outline)


def _percent(scale: Scale, value: float) -> str:
    return f"{100 * scale.place(value):.2f}%"


def child(parent: Element, tag: str, **attributes: float | str) -> Element:
    """A new child of an element.

    Args:
        parent: Gets the child.
        tag: The child's.
        **attributes: Texts, and numbers, of which five digits are kept. In their names _ stands
            for -, and a last one for nothing (``class_``).
    """
    texts = {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else f"{value:.5g}"
        for name, value in attributes.items()
    }
    return SubElement(parent, tag, texts)


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode"))  # ElementTree escapes texts
