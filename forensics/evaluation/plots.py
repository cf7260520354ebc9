"""A run's curves as pictures: ROC, PR, DET, calibration and scores, each as PNG and SVG."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from forensics.errors import ConfigError
from forensics.evaluation.measures import NUM_BINS, Curve, Floats, curve, measure
from forensics.evaluation.tables import Items
from forensics.structures import Thresholds
from forensics.whole_file import whole_file

# Okabe and Ito's colours: told apart by everyone, in print too. Black is all files together.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_REAL, _FAKE = "#0072B2", "#D55E00"
_MOST_CURVES = len(_COLOURS)
# Error rates at which a DET curve's axes are marked.
_DET_TICKS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
_DPI = 150


def draw_plots(
    items: Items, folder: Path, *, title: str, note: str, thresholds: Thresholds | None
) -> list[Path]:
    """Write every plot that `items` (files with a probability) allow; return what was written.

    Ranking curves need both classes. `note` stands small beneath each plot. Raises ConfigError
    without matplotlib.
    """
    library = plot_library()
    curves = _curves(items)
    plots: dict[str, Callable[[Any], None]] = {
        "calibration": lambda axes: _calibration(axes, items),
        "scores": lambda axes: _scores(axes, items, thresholds),
    }
    if curves:
        plots["roc"] = lambda axes: _roc(axes, curves)
        plots["pr"] = lambda axes: _precision_recall(axes, curves, items)
        plots["det"] = lambda axes: _det(axes, curves)
    written: list[Path] = []
    # A fixed salt and no date: the same run gives the same bytes.
    with library["matplotlib"].rc_context({"svg.hashsalt": "deepfake", "font.size": 9}):
        for name, draw in plots.items():
            figure: Any = library["figure"].Figure(figsize=(5.2, 4.8), layout="constrained")
            axes: Any = figure.subplots()
            draw(axes)
            axes.set_title(title, fontsize=10)
            figure.supxlabel(note, fontsize=6, color="#555555")
            for suffix, options in (
                (".png", {"dpi": _DPI}),
                (".svg", {"metadata": {"Date": None}}),
            ):
                path = folder / f"{name}{suffix}"
                with whole_file(path) as file:
                    figure.savefig(file, format=suffix[1:], **options)
                written.append(path)
    return written


def plot_library() -> dict[str, Any]:
    """matplotlib without its global state and windows. Raises ConfigError where it is missing."""
    try:
        modules = {"matplotlib": "matplotlib", "figure": "matplotlib.figure"}
        return {key: cast(Any, importlib.import_module(name)) for key, name in modules.items()}
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'deepfake[evaluate]'") from error


def _curves(items: Items) -> dict[str, tuple[Curve, float]]:
    """Name -> curve and AUC: all files, then each data set with both classes."""
    parts = {"all": items}
    names = sorted({sample.dataset for sample in items.samples})
    if len(names) > 1:
        column = np.array([sample.dataset for sample in items.samples])
        parts |= {name: items.where(column == name) for name in names}
    curves: dict[str, tuple[Curve, float]] = {}
    for name, part in parts.items():
        if 0 < part.labels.sum() < len(part) and len(curves) < _MOST_CURVES:
            ones = np.ones((1, len(part)))
            auc = float(measure(part.labels, part.probabilities, ones)["auc"][0])
            curves[name] = curve(part.labels, part.probabilities, ones), auc
    return curves


def _rates(of: Curve) -> tuple[Floats, Floats]:
    """Shares of reals and of fakes at or above each threshold."""
    return of.reals[0] / of.reals[0, -1], of.fakes[0] / of.fakes[0, -1]


def _roc(axes: Any, curves: Mapping[str, tuple[Curve, float]]) -> None:
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle="--")
    for colour, (name, (of, auc)) in zip(_COLOURS, curves.items(), strict=False):
        alarms, hits = _rates(of)
        axes.plot(alarms, hits, color=colour, linewidth=1.5, label=f"{name}: AUC {auc:.3f}")
    _finish(axes, "false alarms (share of reals)", "fakes found (share of fakes)")
    axes.legend(loc="lower right", frameon=False)


def _precision_recall(axes: Any, curves: Mapping[str, tuple[Curve, float]], items: Items) -> None:
    share = float(items.labels.mean())
    axes.axhline(share, color="#bbbbbb", linewidth=0.8, linestyle="--")
    axes.annotate("share of fakes, all", (0.02, share + 0.01), fontsize=7, color="#777777")
    for colour, (name, (of, _)) in zip(_COLOURS, curves.items(), strict=False):
        hits, alarms = of.fakes[0, 1:], of.reals[0, 1:]
        precision, recall = hits / (hits + alarms), hits / of.fakes[0, -1]
        gained = np.diff(of.fakes[0]) / of.fakes[0, -1]
        ap = float(np.sum(gained * precision))
        # Steps, as average precision adds them up.
        axes.step(
            np.append(0.0, recall),
            np.append(precision[0], precision),
            where="pre",
            color=colour,
            linewidth=1.5,
            label=f"{name}: AP {ap:.3f}",
        )
    _finish(axes, "recall (share of fakes found)", "precision")
    axes.legend(loc="lower left", frameon=False)


def _det(axes: Any, curves: Mapping[str, tuple[Curve, float]]) -> None:
    """Detection error trade-off on normal deviates (Martin et al., 1997)."""
    ticks = _deviate(np.array(_DET_TICKS))
    for colour, (name, (of, _)) in zip(_COLOURS, curves.items(), strict=False):
        alarms, hits = _rates(of)
        inside = (alarms > 0) & (hits < 1)
        # Ends are at infinity: a curve runs to the edge of the plot.
        axes.plot(
            _deviate(alarms[inside]),
            _deviate(1 - hits[inside]),
            color=colour,
            linewidth=1.5,
            marker="." if inside.sum() < 40 else None,
            label=name,
        )
    axes.plot(ticks, ticks, color="#bbbbbb", linewidth=0.8, linestyle="--")
    for place, values in (("x", axes.set_xticks), ("y", axes.set_yticks)):
        values(ticks, [f"{100 * rate:g}%" for rate in _DET_TICKS])
        axes.tick_params(axis=place, labelsize=7, labelrotation=45 if place == "x" else 0)
    axes.set_xlim(ticks[0], ticks[-1])
    axes.set_ylim(ticks[0], ticks[-1])
    axes.set_xlabel("false alarms (share of reals)")
    axes.set_ylabel("misses (share of fakes)")
    axes.grid(visible=True, color="#eeeeee", linewidth=0.6)
    axes.legend(loc="upper right", frameon=False)


def _calibration(axes: Any, items: Items) -> None:
    """Share of fakes against mean probability per bin, with how many files a bin holds."""
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    member = np.searchsorted(edges[1:-1], items.probabilities)
    counts = np.bincount(member, minlength=NUM_BINS)
    held = counts > 0
    mean = np.bincount(member, weights=items.probabilities, minlength=NUM_BINS)[held] / counts[held]
    share = np.bincount(member, weights=items.labels, minlength=NUM_BINS)[held] / counts[held]
    ones = np.ones((1, len(items)))
    error = float(measure(items.labels, items.probabilities, ones)["ece"][0])
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle="--", label="calibrated")
    axes.plot(mean, share, color=_COLOURS[0], linewidth=1, label=f"ECE {error:.3f}")
    sizes = 12 + 160 * counts[held] / counts.max()
    axes.scatter(mean, share, s=sizes, color=_COLOURS[1], alpha=0.8, zorder=3)
    for x, y, count, size in zip(mean, share, counts[held], sizes, strict=True):
        above = 3 + np.sqrt(size) / 2  # a marker's size is its area in points
        axes.annotate(
            str(count), (x, y), (0, above), textcoords="offset points", fontsize=6, ha="center"
        )
    _finish(axes, "mean probability of fake in the bin", "share of fakes in the bin")
    axes.set_ylim(-0.03, 1.1)  # room for the counts above
    axes.legend(loc="upper left", frameon=False)


def _scores(axes: Any, items: Items, thresholds: Thresholds | None) -> None:
    bins = np.linspace(0.0, 1.0, 41)
    for label, name, colour in ((0, "real", _REAL), (1, "fake", _FAKE)):
        chosen = items.probabilities[items.labels == label]
        if len(chosen):
            axes.hist(
                chosen,
                bins=bins,
                weights=np.full(len(chosen), 1 / len(chosen)),
                color=colour,
                alpha=0.55,
                label=f"{name} ({len(chosen)})",
            )
    if thresholds is not None:
        for value, name in ((thresholds.real, "real up to"), (thresholds.fake, "fake from")):
            axes.axvline(value, color="#333333", linewidth=0.9, linestyle=":")
            axes.annotate(
                f"{name} {value:.2f}",
                (value, 0.98),
                (2, -2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=7,
                rotation=90,
                va="top",
            )
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability of fake")
    axes.set_ylabel("share of the class")
    axes.legend(loc="best", frameon=False)


def _finish(axes: Any, x: str, y: str) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.04)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, color="#eeeeee", linewidth=0.6)


def _deviate(rates: Floats) -> Floats:
    """Standard normal quantiles of error rates in 0..1, without the ends."""
    from scipy.special import ndtri  # pyright: ignore[reportUnknownVariableType] (no types)

    return np.asarray(ndtri(np.minimum(np.maximum(rates, 1e-6), 1 - 1e-6)), dtype=np.float64)
