"""Drawings as SVG elements; what they show stands beside them as a table, too."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway import domain
from services.gateway.console import parts

_SIDE, _LEFT, _TOP, _BOTTOM, _RIGHT = 300.0, 48.0, 12.0, 44.0, 12.0
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LEAST_DOT, _MOST_DOT = 3.0, 9.0


def reliability(bins: Sequence[domain.Bin], threshold: float) -> None:
    """A reliability diagram: what was said, and how often it came true.

    Args:
        bins: of about equally probable answers.
        threshold: where the router's decision lies.
    """
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    about = (
        "Reliability diagram: across, the probability that the router told; upwards, the share "
        "that came true. On the dashed diagonal both are equal. The table below has the numbers."
    )
    with parts.block("svg", viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=about):
        for tick in _TICKS:
            _line(_x(tick), _y(0), _x(tick), _y(1), "grid")
            _line(_x(0), _y(tick), _x(1), _y(tick), "grid")
            _words(f"{tick:g}", _x(tick), _y(0) + 16, "middle")
            _words(f"{tick:g}", _x(0) - 8, _y(tick) + 4, "end")
        _words("probability told", _x(0.5), height - 8, "middle")
        parts.Text(
            "text",
            "share that came true",
            transform=f"translate(11 {_y(0.5):.0f}) rotate(-90)",
            text_anchor="middle",
        )
        _line(_x(0), _y(0), _x(1), _y(1), "ideal")
        _line(_x(threshold), _y(0), _x(threshold), _y(1), "limit")
        _words(f"threshold {threshold:g}", _x(threshold) + 5, _y(1) + 12, "start", "limit-name")
        heaviest = max((one.mass for one in bins), default=1.0)
        for one in bins:
            x, y = _x(one.probability), _y(one.share)
            _line(x, y, x, _y(one.probability), "gap")
            radius = _LEAST_DOT + (_MOST_DOT - _LEAST_DOT) * (one.mass / heaviest) ** 0.5
            parts.block("circle", "dot", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:.1f}")


def _x(share: float) -> float:
    return _LEFT + _SIDE * share


def _y(share: float) -> float:
    return _TOP + _SIDE * (1 - share)


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    parts.block("line", classes, **{name: f"{at:.1f}" for name, at in ends.items()})


def _words(words: str, x: float, y: float, anchor: str, classes: str = "") -> None:
    parts.Text("text", words, classes, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)
