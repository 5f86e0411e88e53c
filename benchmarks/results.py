"""The form in which every benchmark reports: rows, a table, a plot, `results/AREA.json`."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence

import matplotlib
import rich.console
import rich.table

FOLDER = pathlib.Path(__file__).parent / "results"
KEPT = pathlib.Path(__file__).parents[1] / ".bench"
"""What a benchmark keeps from one run to the next; not under version control."""
_WIDTH = 160
"""Of the table in characters, where it does not go to a terminal."""
_WIDEST = 4.0
"""Of the plot, in targets: what is beyond is cut."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure."""

    name: str
    value: float | None
    """None where it was skipped; `note` says why."""
    unit: str
    least: float | None = None
    """The value must reach this."""
    most: float | None = None
    """The value must not pass this."""
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    """How many times better than the peer, above 1 is better."""
    least_ratio: float | None = None
    """The ratio must reach this."""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether every target is reached; None without value or target."""
        if self.value is None or (self.least, self.most, self.least_ratio) == (None, None, None):
            return None
        return (
            (self.least is None or self.value >= self.least)
            and (self.most is None or self.value <= self.most)
            and (self.least_ratio is None or (self.ratio or 0.0) >= self.least_ratio)
        )


def report(area: str, rows: Sequence[Row]) -> None:
    """Prints the table, saves plot and JSON."""
    FOLDER.mkdir(exist_ok=True)
    print_rows(area, rows)
    _plot(area, rows)
    content = {
        "area": area,
        "commit": _commit(),
        "machine": {"cores": os.cpu_count(), "cpu": _cpu(), "gpu": None},
        "rows": [
            {
                key: value
                for key, value in dataclasses.asdict(row).items()
                if key == "value" or value not in (None, "")
            }
            for row in rows
        ],
    }
    path = FOLDER / f"{area}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def print_rows(area: str, rows: Sequence[Row]) -> None:
    """Prints the table."""
    table = rich.table.Table(title=f"make bench area={area}")
    table.add_column("row", no_wrap=True)
    for heading in ("value", "peer", "times better"):
        table.add_column(heading, justify="right")
    for heading in ("unit", "target", "reached", "note"):
        table.add_column(heading)
    for row in rows:
        value = "skipped" if row.value is None else _number(row.value)
        mark = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row.reached]
        peer, ratio = _number(row.peer_value), _number(row.ratio)
        note = "; ".join(part for part in (row.peer, row.note) if part)
        table.add_row(row.name, value, peer, ratio, row.unit, _target(row), mark, note)
    width = None if sys.stdout.isatty() else _WIDTH
    rich.console.Console(width=width).print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _target(row: Row) -> str:
    targets = (("≥ ", row.least, ""), ("≤ ", row.most, ""), ("≥ ", row.least_ratio, " x"))
    return ", ".join(f"{sign}{at:g}{unit}" for sign, at, unit in targets if at is not None)


def _plot(area: str, rows: Sequence[Row]) -> None:
    """One bar a row: the value as a share of its target."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [(row, share) for row in rows if (share := _reached_share(row)) is not None]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(shown) + 1.4), layout="constrained")
    colours = ["#2a7f62" if row.reached else "#b3402a" for row, _ in shown]
    axes.barh(
        [f"{row.name} ({_target(row)})" for row, _ in shown], [s for _, s in shown], color=colours
    )
    for at, (row, share) in enumerate(shown):
        digits = 0 if row.ratio and row.ratio >= 10 else 2
        is_share = row.ratio in (None, row.value)  # Its unit says of what.
        peer = "" if is_share else f", {row.ratio:,.{digits}f} x {row.peer}"
        axes.text(
            min(share, _WIDEST / 2),
            at,
            f" {row.value:,.4g} {row.unit}{peer}",
            va="center",
            fontsize=8,
        )
    axes.axvline(1.0, color="#444444", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlim(0, min(max([1.2, *(share for _, share in shown)]) * 1.8, _WIDEST))
    axes.set_xlabel("value as a share of the target")
    axes.set_title(f"{area}: green reaches its target")
    figure.savefig(FOLDER / f"{area}.png", dpi=120)
    pyplot.close(figure)


def _reached_share(row: Row) -> float | None:
    """Of a row's target, the one of its ratio first; None without one, or where it is 0."""
    if row.ratio is not None and row.least_ratio:
        return row.ratio / row.least_ratio
    target = row.least if row.least is not None else row.most
    return row.value / target if row.value is not None and target else None


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _cpu() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
