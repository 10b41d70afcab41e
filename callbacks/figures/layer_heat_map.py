"""A heat map of where in the network the best neurons lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from twinlens.callbacks.figures.layer_profiles import LayerProfile
from twinlens.callbacks.figures.style import DPI, STYLE, short

_ANNOTATED_LAYERS = 16  # more cells are too narrow for a number


def layer_heat_map(profiles: Sequence[LayerProfile]) -> Figure:
    """Layers (columns) by method and explained class (rows): share of the top neurons, and summed score.

    Shares have one scale for all rows; scores are divided by the largest magnitude of their row, because methods have
    different units.
    """
    layers = len(profiles[0].share)
    share = np.stack([profile.share for profile in profiles])
    score = np.stack([profile.score for profile in profiles])
    largest = np.abs(score).max(1, keepdims=True)
    relative = np.divide(score, largest, out=np.zeros_like(score), where=largest > 0)
    with rc_context(STYLE):
        cell = min(0.5, max(0.22, 9.0 / layers))
        width, height = 3.4 + cell * layers, 0.3 * len(profiles)
        figure = Figure(figsize=(max(width, 6.0), 2 * height + 1.9), dpi=DPI, layout="constrained", facecolor="white")
        upper, lower = figure.subplots(2, 1, sharex=True)
        _heat(upper, share, profiles, "cividis", 0.0, float(share.max()), "Share of the top neurons")
        lowest = -1.0 if relative.min() < -0.005 else 0.0  # what rounds to zero is no second direction
        colours = "PuOr" if lowest else "cividis"
        _heat(lower, relative, profiles, colours, lowest, 1.0, "Summed score, relative to its row's largest")
        lower.set_xlabel("Layer")
        step = max(1, math.ceil(layers / 24))
        lower.set_xticks(range(0, layers, step), [str(layer) for layer in range(0, layers, step)])
    return figure


def _heat(
    axis: Axes,
    values: np.ndarray,
    profiles: Sequence[LayerProfile],
    colours: str,
    lowest: float,
    highest: float,
    title: str,
) -> None:
    image = axis.imshow(values, cmap=colours, vmin=lowest, vmax=highest or 1.0, aspect="auto", interpolation="nearest")
    axis.set_title(title)
    names = [short(f"   {profile.label}" if profile.label else profile.method) for profile in profiles]
    axis.set_yticks(range(len(profiles)), names)
    for tick, profile in zip(axis.get_yticklabels(), profiles, strict=True):
        tick.set_fontweight("normal" if profile.label else "bold")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(profiles) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.2)
    axis.tick_params(which="minor", length=0)
    bar = axis.figure.colorbar(image, ax=axis, pad=0.015, aspect=12)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0, labelsize=8)
    if values.shape[1] <= _ANNOTATED_LAYERS:
        _annotate(axis, values, image.get_cmap(), lowest, highest or 1.0)


def _annotate(axis: Axes, values: np.ndarray, colours: Colormap, lowest: float, highest: float) -> None:
    """Write each cell's number in black or white, whichever stands out."""
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        red, green, blue, _ = colours((value - lowest) / (highest - lowest))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
        text = f"{abs(value):.2f}".replace("0.", ".", 1)
        text = f"−{text}" if round(value, 2) < 0 else text
        axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
