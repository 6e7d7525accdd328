"""The plots: PNG files from the newest results, drawn with matplotlib.

    tools/with-env python bench/plots.py        draws them again; ``make bench`` does it by itself

Each plot is of one benchmark, and its footer names the machine, the versions, the settings
and the date of that very run.  A bar is a median, its whisker goes from the least to the
greatest value; a dot is a median of samples with lines to p95 and p99.  Axes begin at zero
unless they are logarithmic, and say so in their unit.  What would make a plot dishonest
is a cut axis, or bars of different runs side by side; there is neither.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # files only, no display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

import report
from common import Bounded, Figure, Result

INK = "#222222"
FAINT = "#8a8a8a"
OURS = "#1f6f8b"
BARE = "#b5b5b5"
PROMISE = "#c0392b"
OVER = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # text that crosses a line
SCALE = (0.01, 1000.0)  # of bounds
TURNS = "turns of each key, "
RATE = "messages/s"
STYLE: dict[Any, Any] = {  # the keys have a type that only matplotlib's stubs know
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 16,  # room for what is written at a promise
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
}


def figures(result: Result, unit: str, start: str = "") -> list[Figure]:
    """The figures of a unit."""
    return [f for f in result.figures if f.unit == unit and f.name.startswith(start)]


def spread(figure: Figure) -> tuple[list[float], list[float]]:
    """How far least and greatest value lie from the median."""
    median = figure.median
    return [median - min(figure.values)], [max(figure.values) - median]


def number(value: float) -> str:
    """A value beside its bar."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def bars(
    axes: Axes, shown: Sequence[Figure], color: Callable[[Figure], str], promise: float | None
) -> None:
    """Horizontal bars with whiskers; the promise is a line."""
    for place, figure in enumerate(shown):
        axes.barh(place, figure.median, height=0.62, color=color(figure))
        if len(figure.values) > 1:
            axes.errorbar(
                figure.median, place, xerr=spread(figure), color=INK, linewidth=1, capsize=3
            )
        axes.annotate(
            number(figure.median),
            (max(figure.values), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            bbox=OVER,
        )
    axes.set_yticks(range(len(shown)), [figure.name for figure in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(promise or 0, *(max(figure.values) for figure in shown)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    if promise is not None:
        axes.axvline(promise, color=PROMISE, linewidth=1, linestyle="--", zorder=0)
        axes.annotate(
            f"promise: {promise:,g}",
            (promise, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            color=PROMISE,
            fontsize=8,
        )


def stacked(count: int, rows: Sequence[int]) -> tuple[Drawing, list[Axes]]:
    """Panels one above the other, as high as their rows need."""
    drawing, panels = plt.subplots(
        count,
        1,
        figsize=(9.5, sum(rows) * 0.32 + count * 0.9 + 0.7),
        height_ratios=[row + 1 for row in rows],
        squeeze=False,
        layout="constrained",
    )
    return drawing, [row[0] for row in panels]


def is_bare(figure: Figure) -> str:
    """Grey for what djactor is compared with."""
    return (
        BARE
        if figure.name.endswith(("bare loop", "bare copy")) and "/" not in figure.name
        else OURS
    )


def throughput(result: Result) -> Drawing:
    """Rates, the yardstick in grey, and ratios."""
    rates, ratios = figures(result, "messages/s"), figures(result, "times")
    drawing, (upper, lower) = stacked(2, [len(rates), len(ratios)])
    bars(upper, rates, is_bare, 150_000)
    upper.set_title("Throughput: messages handled in a second")
    upper.set_xlabel("messages a second, to the commit of the last one")
    bars(lower, ratios, is_bare, None)
    lower.set_title("Ratios, round by round")
    lower.set_xlabel("times")
    return drawing


def matrix(result: Result) -> Drawing:
    """Rates of every shape, a panel for each number of actors."""
    rates = figures(result, "messages/s")
    groups: dict[str, list[Figure]] = {}
    for figure in rates:
        actors = next(
            a
            for a in ("1,000 actors", "one actor", "100,000 actors")
            if figure.name.startswith(f"{a}, ")
        )
        groups.setdefault(actors, []).append(figure)
    drawing, panels = stacked(len(groups), [len(group) for group in groups.values()])
    for axes, (actors, group) in zip(panels, groups.items(), strict=True):
        short = [Figure(f.name.removeprefix(f"{actors}, "), f.unit, f.values) for f in group]
        bars(axes, short, is_bare, None)
        axes.set_title(actors)
        axes.set_xlabel("messages a second")
    return drawing


def dots(
    axes: Axes,
    shown: Sequence[Figure],
    color: Callable[[Figure], str],
    limits: tuple[float, float],
) -> None:
    """Medians with their tails, on a logarithmic axis."""
    for place, figure in enumerate(shown):
        p95, p99 = figure.percentile(95), figure.percentile(99)
        axes.plot([figure.median, p99], [place, place], color=color(figure), linewidth=1)
        axes.plot([figure.median, p95], [place, place], color=color(figure), linewidth=3)
        axes.plot(figure.median, place, "o", color=color(figure), markersize=7)
        axes.plot(p99, place, "|", color=color(figure), markersize=9)
        axes.annotate(
            f"{figure.median:.2f}, p99 {p99:.2f}",
            (p99, place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox=OVER,
        )
    axes.set_yticks(range(len(shown)), [figure.name for figure in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def response(result: Result) -> Drawing:
    """Response by rate: each beside its durable commit."""
    samples = [figure for figure in result.figures if figure.samples]
    commits = {f.name.removeprefix("durable commit, "): f for f in samples if "durable" in f.name}
    panels: dict[str, list[Figure]] = {}
    for case, commit in commits.items():
        mine = [f for f in samples if f.name.startswith(f"{case}, ") or f.name == f"ask, {case}"]
        if mine:
            panels[case] = [
                Figure(f.name.removeprefix(f"{case}, ").removesuffix(f", {case}"), f.unit, f.values)
                for f in [commit, *mine]
            ]
    drawing, axes_of = stacked(len(panels), [len(panel) for panel in panels.values()])
    everything = [figure for panel in panels.values() for figure in panel]
    limits = (
        min(figure.median for figure in everything) / 1.5,
        max(figure.percentile(99) for figure in everything) * 2,
    )
    for axes, (case, panel) in zip(axes_of, panels.items(), strict=True):
        dots(axes, panel, lambda f: BARE if f.name.startswith("durable") else OURS, limits)
        three = 3 * panel[0].median
        axes.axvline(three, color=PROMISE, linewidth=1, linestyle="--", zorder=0)
        axes.set_title(f"Response, {case}")
        axes.annotate(
            "promise for medians: three durable commits",
            (three, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            color=PROMISE,
            fontsize=8,
        )
    axes_of[-1].set_xlabel(
        "ms from the sender's commit to the effect's (asks: round trip); logarithmic;"
        " dot: median, thick line: to p95, thin line: to p99"
    )
    return drawing


def sender(result: Result) -> Drawing:
    """What sending costs, and how many times the bare INSERT that is."""
    costs = [f for f in figures(result, "µs/row") if "CPU" not in f.name]
    ways = list(dict.fromkeys(f.name.partition(": ")[0] for f in costs))
    ratios = figures(result, "times")
    drawing, (upper, *panels) = stacked(1 + len(ways), [len(ratios), *[3] * len(ways)])
    bars(upper, ratios, is_bare, 1.3)
    upper.set_title("Sending: times the bare INSERT")
    upper.set_xlabel("times")
    for way, axes in zip(ways, panels, strict=True):
        mine = [
            Figure(f.name.removeprefix(f"{way}: "), f.unit, f.values)
            for f in costs
            if f.name.startswith(f"{way}: ")
        ]
        bars(axes, mine, lambda f: OURS if f.name == "djactor.message" else BARE, None)
        axes.set_title(f"Sending, {way}")
        axes.set_xlabel("µs a row")
    return drawing


def concurrency(result: Result) -> Drawing:
    """Rates of 32 clients."""
    rates, ratios = figures(result, "messages/s"), figures(result, "times")
    drawing, (upper, lower) = stacked(2, [len(rates), len(ratios)])
    bars(upper, rates, is_bare, None)
    upper.set_title("32 clients, single rows, each committed durably")
    upper.set_xlabel("messages a second")
    bars(lower, ratios, is_bare, 0.9)
    lower.set_title("Times the bare rate (promised for the paused type)")
    lower.set_xlabel("times")
    return drawing


def over_time(result: Result) -> Drawing:
    """A curve for each series; those of one unit and one stem share a picture."""
    groups: dict[str, list[str]] = {}
    for name in result.series:
        stem, _, unit = name.rpartition(": ")
        groups.setdefault(f"{stem}, {unit}" if result.name == "flatness" else unit, []).append(name)
    drawing, axes = stacked(len(groups), [6] * len(groups))
    for one, (title, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            times, values = result.series[name]
            one.plot(times, values, linewidth=1.2, label=name.rpartition(": ")[0])
        one.set_title(title)
        one.set_ylim(bottom=0)
        one.set_xlabel("million messages" if result.name == "memory" else "seconds")
        if len(names) > 1:
            one.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return drawing


def of_bound(row: Bounded, value: float) -> float:
    """How many times its bound a value is, so that 1 is just good enough and less is better.

    What is off the scale lies at its end.
    """
    if row.most is not None:
        times = value / row.most
    else:
        times = (row.least or 0.0) / value if value else math.inf
    return min(max(times, SCALE[0]), SCALE[1])


def bounds(axes: Axes, rows: Sequence[Bounded]) -> None:
    """A dot for each row that is judged, and a ring for the other build."""
    for place, row in enumerate(rows):
        color = OURS if row.holds else PROMISE
        axes.plot(of_bound(row, row.value), place, "o", color=color, markersize=6)
        if row.before and not math.isnan(row.value_before):
            before = of_bound(row, row.value_before)
            axes.plot(before, place, "o", color=FAINT, markersize=9, fillstyle="none")
    axes.axvline(1, color=PROMISE, linewidth=1, linestyle="--", zorder=0)
    axes.set_yticks(range(len(rows)), [f"{row.name}: {row.bound} {row.unit}" for row in rows])
    axes.tick_params(axis="y", labelsize=6.5)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xscale("log")
    axes.set_xlim(SCALE[0] / 1.5, SCALE[1] * 1.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def neighbours(result: Result) -> Drawing:
    """How fair, how fast with shared rows, and what has a bound on one scale.

    A bound of zero is not on that scale: it is kept or not, as the table says.
    """
    turns = {n: v for n, (_, v) in result.series.items() if n.startswith(TURNS) and any(v)}
    rates = [row for row in result.bounded if row.name.startswith("3: ") and row.unit == RATE]
    judged = [row for row in result.bounded if (row.most or row.least) and row.holds is not None]
    shown = [
        Figure(row.name.removeprefix("3: ") + title, row.unit, values)
        for row in rates
        for title, values in ((", before", row.before), ("", row.values))
        if values
    ]
    heights = [8 if turns else 0, len(shown), len(judged) * 2 // 3]
    drawing, panels = stacked(sum(map(bool, heights)), [rows for rows in heights if rows])
    left = iter(panels)
    if turns:
        axes = next(left)
        loads = list(dict.fromkeys(name.rpartition(", ")[0] for name in turns))
        for name, values in turns.items():
            load, _, build = name.rpartition(", ")
            mean = sum(values) / len(values)
            axes.plot(
                [100 * i / (len(values) - 1) for i in range(len(values))],
                [value / mean for value in values],
                color=f"C{loads.index(load)}",
                linestyle="-" if build == "now" else ":",
                linewidth=1.4,
                label=f"{load.removeprefix(TURNS)}, {build}",
            )
        axes.set_title("Fairness: turns of each key, the keys in the order of their turns")
        axes.set_xlabel("percent of the keys")
        axes.set_ylabel("times the mean")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, frameon=False, loc="upper left")
    if shown:
        axes = next(left)
        bars(axes, shown, lambda f: BARE if f.name.endswith("before") else OURS, None)
        axes.set_title("Handlers that update one of some rows, chosen at random")
        axes.set_xlabel("messages a second")
    if judged:
        axes = next(left)
        bounds(axes, judged)
        axes.set_title("What is bounded: left of the line is within the bound")
        axes.set_xlabel("times the bound; logarithmic; ring: before")
    return drawing


PLOTS: dict[str, Callable[[Result], Drawing]] = {
    "throughput": throughput,
    "matrix": matrix,
    "response": response,
    "sender": sender,
    "concurrency": concurrency,
    "neighbours": neighbours,
    "flatness": over_time,
    "memory": over_time,
    "sizes": over_time,
}


def footer(where: report.Machine, result: Result) -> str:
    """Where it was measured, with what and when."""
    settings = ", ".join(f"{name} = {value}" for name, value in result.settings.items())
    server = where.server.replace("postgres (PostgreSQL)", "PostgreSQL")
    machine = (
        f"{where.cpu}, {where.cores} cores, {where.memory_gb} GB, Linux {where.kernel},"
        f" {where.filesystem.split()[0]}; {server};"
        f" djactor {where.revision}; {where.date[:16].replace('T', ' ')}"
    )
    busy = (
        f"  DISTURBED: others used {result.disturbance:.2f} cores."
        if result.disturbance > report.DISTURBED
        else ""
    )
    return "\n".join(
        line
        for text in (machine + busy, f"fsync = on, {settings}")
        for line in textwrap.wrap(text, 150)
    )


def draw(kept: Sequence[tuple[report.Machine, Result]], directory: Path) -> list[Path]:
    """Draw what there is a plot for."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with plt.rc_context(STYLE):
        for where, result in kept:
            if result.name not in PLOTS:
                continue
            drawing = PLOTS[result.name](result)
            drawing.text(
                0.005, -0.01, footer(where, result), fontsize=7, color=FAINT, va="top", ha="left"
            )
            path = directory / f"{result.name}.png"
            drawing.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.15)
            plt.close(drawing)
            written.append(path)
    return written


if __name__ == "__main__":
    for path in draw(report.newest(), report.PLOTS):
        sys.stdout.write(f"{path}\n")
