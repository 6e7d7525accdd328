"""The comparison as tables and as a plot.

What always holds: each figure is a median with its least and greatest value; the ratio beside it
is that of the medians, djactor (see BASES) over the rival, and below 1 where the rival is
faster; a rival that was stopped by the time limit, or keeps no order where order was asked for,
or acknowledges without durability, has that beside its figure.  Who could not be measured is
listed, not left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rivals.extras import Recovery, Start
from rivals.measure import Run
from rivals.protocol import Case, Plan, Rival

BASE = ("djactor", "one worker")
BASES = {
    "sleep": ("djactor hosted", "one process"),
    "orm": ("djactor hosted", "two processes"),
    "tasks": ("djactor hosted", "two processes"),
}


@dataclass
class Row:
    """What one rival gave in one case with one set of settings."""

    rival: Rival
    variant: str
    case: Case
    plan: Plan
    runs: list[Run] = field(default_factory=list)
    error: str = ""

    @property
    def label(self) -> str:
        """Its name in table and plot."""
        return f"{self.rival.name}, {self.variant}"

    @property
    def rates(self) -> list[float]:
        """Messages a second, run by run."""
        return [run.rate for run in self.runs]

    @property
    def median(self) -> float:
        """Of the rates."""
        return statistics.median(self.rates)


@dataclass
class Comparison:
    """All that was found."""

    head: str
    rows: list[Row]
    skipped: dict[str, str]
    recoveries: dict[str, Recovery | str]
    idle: dict[str, float | str]
    starts: dict[str, Start | str]
    notes: list[str]


def shown(value: float) -> str:
    """Three digits, or all of the integer part."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _range(values: Sequence[float]) -> str:
    if len(values) == 1:
        return shown(values[0])
    low, high = shown(min(values)), shown(max(values))
    return f"{shown(statistics.median(values))} ({low} to {high})"


def _aligned(table: list[list[str]]) -> list[str]:
    """A Markdown table that a terminal shows well, too."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def ratio(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times djactor's rate is the row's."""
    wanted = BASES.get(row.case.name, BASE)
    for base in rows:
        if (base.rival.name, base.variant) == wanted and base.case == row.case and base.runs:
            return base.median / row.median
    return None


def _table(case: Case, rows: Sequence[Row]) -> list[str]:
    table = [
        ["", "messages/s", "djactor / rival", "CPU µs/message", "messages", "order", "remarks"]
    ]
    for row in rows:
        if row.case != case:
            continue
        if not row.runs:
            table.append([row.label, "no figure", "", "", "", row.plan.order, row.error])
            continue
        times = ratio(row, rows)
        stopped = sum(not run.complete for run in row.runs)
        limit = max(run.seconds for run in row.runs)
        remarks = [f"stopped after {limit:.1f} s"] if stopped else []
        if 0 < stopped < len(row.runs):
            remarks[0] += f" in {stopped} runs"
        if row.error:
            remarks.append(f"a run failed: {row.error}")
        table.append(
            [
                row.label,
                _range(row.rates),
                shown(times) if times is not None else "",
                shown(statistics.median(run.cpu_us for run in row.runs)),
                f"{row.plan.messages:,}",
                row.plan.order,
                "; ".join(remarks),
            ]
        )
    return _aligned(table)


def _extras(comparison: Comparison) -> list[str]:
    lines: list[str] = []
    if comparison.recoveries:
        lines += ["", "### After a SIGKILL of the worker", ""]
        table = [["", "all done after", "waiting at the kill", "still waiting", "effects"]]
        for name, found in comparison.recoveries.items():
            if isinstance(found, str):
                table.append([name, "no figure", "", "", found])
                continue
            after = f"{'not within ' if found.stuck else ''}{found.seconds:.2f} s"
            effect = f"{found.effect:.2%} of what was sent"
            if found.effect == 1:
                effect = "exactly what was sent"
            table.append([name, after, f"{found.waiting:,}", f"{found.stuck:,}", effect])
        lines += _aligned(table)
    if comparison.starts:
        lines += ["", "### From the commit to the start of a task, an idle worker", ""]
        table = [["", "median", "95%", "most"]]
        for name, one in comparison.starts.items():
            if isinstance(one, str):
                table.append([name, "no figure", "", one])
            else:
                table.append([name, *(f"{ms:.2f} ms" for ms in (one.median, one.p95, one.most))])
        lines += _aligned(table)
    if comparison.idle:
        lines += ["", "### Idle", ""]
        table = [["", "CPU ms/s of server, worker and broker"]]
        for name, value in comparison.idle.items():
            table.append([name, value if isinstance(value, str) else f"{value:.1f}"])
        lines += _aligned(table)
    return lines


def _settings(rows: Sequence[Row]) -> list[str]:
    lines = ["", "### Settings", ""] if rows else []
    for label in dict.fromkeys(row.label for row in rows):
        by_settings: dict[str, list[str]] = {}
        for row in rows:
            if row.label == label:
                text = ", ".join(f"{k} = {v}" for k, v in row.plan.settings.items()) or "none"
                by_settings.setdefault(text, []).append(row.case.name)
        if len(by_settings) == 1:
            lines.append(f"- {label}: {next(iter(by_settings))}")
        else:
            parts = [f"{text} ({', '.join(names)})" for text, names in by_settings.items()]
            lines.append(f"- {label}: {'; '.join(parts)}")
    return lines


def markdown(comparison: Comparison) -> str:
    """Everything."""
    rows = comparison.rows
    lines = ["# djactor and other queues, side by side", "", "Written by `make bench-rivals`.", ""]
    lines += [f"    {line}" for line in comparison.head.splitlines()]
    lines += ["", *comparison.notes, ""]
    rivals = dict.fromkeys(row.rival for row in rows)
    lines += _aligned(
        [["", "version", "an acknowledged message is"]]
        + [[rival.name, rival.version, rival.about] for rival in rivals]
    )
    if comparison.skipped:
        lines += ["", *(f"SKIP {name}: {why}" for name, why in comparison.skipped.items())]
    for case in dict.fromkeys(row.case for row in rows):
        lines += ["", f"### {case.title} (`{case.name}`)", "", *_table(case, rows)]
    return "\n".join([*lines, *_extras(comparison), *_settings(rows), ""])


def plot(comparison: Comparison, path: Path) -> None:
    """A panel for each case: bars on a logarithmic scale, the spread, the ratio."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not comparison.rows:
        return
    cases = [c for c in dict.fromkeys(row.case for row in comparison.rows)]
    lines = -(-len(cases) // 2)
    figure, grid = pyplot.subplots(lines, 2, figsize=(16, 5.2 * lines + 1.2), squeeze=False)
    panels = [panel for line in grid for panel in line]
    for panel in panels[len(cases) :]:
        panel.axis("off")
    for panel, case in zip(panels, cases, strict=False):
        rows = [row for row in comparison.rows if row.case == case and row.runs]
        medians = [row.median for row in rows]
        spread = [
            [row.median - min(row.rates) for row in rows],
            [max(row.rates) - row.median for row in rows],
        ]
        ours = [row.rival.name.startswith("djactor") for row in rows]
        colors = ["#1a7f5a" if one else "#7a8ba6" for one in ours]
        places = range(len(rows))
        panel.barh(places, medians, xerr=spread, color=colors, ecolor="#333333", capsize=2)
        unordered = case.keys > 0
        names = [
            row.label + (" *" if unordered and row.plan.order.startswith("none") else "")
            for row in rows
        ]
        panel.set_yticks(places, names, fontsize=8)
        panel.invert_yaxis()
        panel.set_xscale("log")
        if medians:
            panel.set_xlim(min(medians) / 3, max(medians) * 300)
        for place, row in zip(places, rows, strict=True):
            times = ratio(row, comparison.rows)
            text = f" {shown(row.median)}"
            if times is not None and not row.rival.name.startswith("djactor"):
                text += f"   (djactor / this: {shown(times)})"
            panel.text(max(row.rates) * 1.1, place, text, va="center", fontsize=8)
        panel.set_title(case.title + (", * keeps no order" if unordered else ""), fontsize=10)
        panel.set_xlabel("messages/s, logarithmic; median, least and greatest", fontsize=8)
    head = [line for line in comparison.head.splitlines() if not line.startswith("WARNING")]
    figure.suptitle("\n".join(" ".join(line.split()) for line in head[:4]), fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
