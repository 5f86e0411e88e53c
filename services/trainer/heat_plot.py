"""A `WeightMap` as a picture: layers from left to right, kinds of module from top to bottom."""

from __future__ import annotations

import pathlib
import re

import matplotlib
import numpy as np

from services.trainer import probe

_LAYER = re.compile(r"\.(\d+)\.")


def save(found: probe.WeightMap, path: pathlib.Path) -> None:
    """Writes the picture as PNG; modules outside numbered layers are in no cell."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row.kind for row in found.rows if _LAYER.search(row.path)))
    cells = {
        (kinds.index(row.kind), int(match[1])): row.heat
        for row in found.rows
        if (match := _LAYER.search(row.path))
    }
    layers = 1 + max((layer for _, layer in cells), default=0)
    heat = np.full((max(1, len(kinds)), layers), np.nan)
    for place, value in cells.items():
        heat[place] = value
    figure, axes = pyplot.subplots(
        figsize=(2.5 + 0.45 * layers, 1.6 + 0.4 * len(kinds)), layout="constrained"
    )
    image = axes.imshow(heat, cmap="inferno", aspect="auto", vmin=0)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(layers))
    axes.set_xlabel("layer")
    axes.set_title("heat of each module (1 is the median)")
    figure.colorbar(image, ax=axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
