"""Suspicion over time as an SVG for a page that forbids inline styles: drawn by matplotlib.

matplotlib writes colours and fonts into `style` attributes. Here they become classes, so that the
page's own style sheet gives them, dark or light, and a strict Content-Security-Policy holds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any
from xml.etree import ElementTree

from forensics.structures import Thresholds, TrackScore

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_WIDTH, _HEIGHT = 9.6, 2.5  # inches of 72 units
# Colours that stand for a role; the style sheet knows the roles by these names.
_ROLES = {
    "ink": "#010101",
    "grid": "#020202",
    "line": "#030303",
    "fake": "#040404",
    "real": "#050505",
    "mean": "#060606",
}
_CLASSES = {colour: role for role, colour in _ROLES.items()}
_KEPT = ("stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "text-anchor")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def timeline(
    score: TrackScore, thresholds: Thresholds | None, span_s: tuple[float, float], name: str
) -> str:
    """Probability of fake in each frame of a track over `span_s`, as an inline SVG element.

    Each frame is a `<circle class="point" data-n="K">`; `name` makes its identifiers unique.
    """
    # Half a second, paid only where a chart is drawn; by name, because it is partly without types.
    matplotlib: Any = import_module("matplotlib")
    figures: Any = import_module("matplotlib.figure")
    canvases: Any = import_module("matplotlib.backends.backend_svg")
    times, probabilities = score.track.times_s, score.frame_probabilities
    start, end = span_s
    margin = max(0.02 * (end - start), 0.05)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10.0}):
        figure = figures.Figure(figsize=(_WIDTH, _HEIGHT), dpi=72)
        canvases.FigureCanvasSVG(figure)
        axes = figure.add_axes((0.055, 0.2, 0.93, 0.74))
        axes.set_xlim(start - margin, end + margin)
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel("seconds", color=_ROLES["ink"])
        axes.tick_params(colors=_ROLES["ink"], length=0, pad=6)
        axes.grid(color=_ROLES["grid"], linewidth=0.8)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.patch.set_visible(False)
        figure.patch.set_visible(False)
        if thresholds is not None:
            axes.axhspan(thresholds.fake, 1.03, color=_ROLES["fake"], alpha=0.12, linewidth=0)
            axes.axhspan(-0.03, thresholds.real, color=_ROLES["real"], alpha=0.12, linewidth=0)
        mean = score.probability
        axes.axhline(mean, color=_ROLES["mean"], linewidth=1.2, dashes=(5, 4))
        axes.plot(times, probabilities, color=_ROLES["line"], linewidth=1.6)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        places = axes.transData.transform(list(zip(times, probabilities, strict=True)))
    root = ElementTree.fromstring(buffer.getvalue())
    _clean(root, f"{name}-")
    _add_points(root, places.tolist())
    return _as_text(root)


def _clean(root: ElementTree.Element, prefix: str) -> None:
    """Drop metadata and style sheets, turn styles into attributes, make identifiers unique."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        style = element.attrib.pop("style", "")
        for declaration in filter(None, (part.strip() for part in style.split(";"))):
            key, _, value = (part.strip() for part in declaration.partition(":"))
            _set(element, key, value)
        link = element.attrib.pop(f"{{{_XLINK}}}href", None)
        if link is not None:
            element.set("href", link.replace("#", f"#{prefix}", 1))
        if "id" in element.attrib:
            element.set("id", prefix + element.attrib["id"])
        for key, value in element.attrib.items():
            element.set(key, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
    for key in ("width", "height"):  # the page decides; the view box keeps the shape
        root.attrib.pop(key, None)


def _set(element: ElementTree.Element, key: str, value: str) -> None:
    if key in ("fill", "stroke"):
        role = _CLASSES.get(value)
        if role is None:
            element.set(key, value)
        else:
            known = element.get("class", "")
            element.set("class", f"{known} {key}-{role}".strip())
    elif key in _KEPT:
        element.set(key, value)


def _add_points(root: ElementTree.Element, places: Sequence[Sequence[float]]) -> None:
    """One circle per frame, where matplotlib would put it; its y axis points up."""
    group = ElementTree.SubElement(root, f"{{{_SVG}}}g", {"class": "points"})
    for n, (x, y) in enumerate(places):
        place = {"cx": f"{x:.2f}", "cy": f"{_HEIGHT * 72 - y:.2f}"}
        attributes = {"class": "point", "data-n": str(n), "r": "3.4", **place}
        ElementTree.SubElement(group, f"{{{_SVG}}}circle", attributes)


def _as_text(root: ElementTree.Element) -> str:
    """The element without a namespace prefix, as HTML wants it."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    for key in [key for key in root.attrib if key.startswith("{")]:
        del root.attrib[key]
    root.set("aria-hidden", "true")
    root.set("focusable", "false")
    return ElementTree.tostring(root, encoding="unicode")
