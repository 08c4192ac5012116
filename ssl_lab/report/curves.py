"""Learning curves as inline SVG whose colours follow the page, light or dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ssl_lab.metrics import OTHER, Metric
from ssl_lab.report.vocabulary import describe
from ssl_lab.runs.read import Curve, Run

NUM_COLORS = 8
"""Number of line colours, ``--c0`` to ``--c7`` in the style sheet; more lines repeat them with another dash."""

# Colours that matplotlib writes and that are then replaced by variables of the style sheet.
_COLORS = [f"#0a0b{k:02x}" for k in range(NUM_COLORS)]
# Not what a matplotlibrc in the working folder says, which can start LaTeX.
_DEFAULTS = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
_MUTED, _RULE = "#0a0c00", "#0a0c01"
_VARIABLES = {
    **{color: f"var(--c{k})" for k, color in enumerate(_COLORS)},
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
}
_GREY = NUM_COLORS - 1  # of yardsticks
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)))
_MAX_POINTS = 400  # per line; more would be invisible at this size and swell the file
_SMOOTH_FROM = 60  # points from which a running mean is drawn over the raw line
_WIDTH, _HEIGHT = 310, 170  # of a panel, in CSS pixels


_MONITORS = {
    "train/feature_std": Metric(
        table=None, column="", panel="Spread within a training batch (0 = collapsed)", line="", format=".3f"
    ),
    "train/feature_rank": Metric(
        table=None, column="", panel="Effective rank within a training batch", line="", format=".3g"
    ),
}
"""Metric watched for collapse at each step; the evaluation's spread and RankMe are of held-out samples."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a panel.

    Attributes:
        label: Its name in the legend.
        curve: What is drawn.
        last: The last value, as shown in the legend.
        color: Number of its colour; those from ``NUM_COLORS`` on repeat the colours with another dash.
        reference: Whether it is a yardstick, drawn dashed.
        deviation: Deviation at each of the curve's steps, drawn as a band; empty if unknown.
    """

    label: str
    curve: Curve
    last: str
    color: int = 0
    reference: bool = False
    deviation: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A small plot.

    Attributes:
        title: Its heading.
        lines: Lines, for the legend.
        svg: The drawing.
        detail: Whether it shows how training ran, and not what came of it: optimizer, collapse, machine, secondary scores.
    """

    title: str
    lines: tuple[Line, ...]
    svg: Markup
    detail: bool = False


def run_panels(run: Run) -> list[Panel]:
    """Panels of one run: training loss, evaluation, parts of the loss, learning rate, speed, secondary scores."""
    groups: dict[str, list[tuple[Metric, str]]] = {}
    for name in _ordered(run.curves, run.described):
        metric = _metric(name, run.described)
        groups.setdefault(metric.panel, []).append((metric, name))
    panels = []
    for title, members in groups.items():
        members.sort(key=lambda member: (bool(member[0].reference), member[0].order))
        lines = [
            _line(run, name, metric, metric.line, _GREY if metric.reference else color)
            for color, (metric, name) in enumerate(members)
        ]
        detail = all(_place(name, run.described)[0] > _LAST_RESULT for _, name in members)
        panels.append(_panel(title, lines, percent=members[0][0].percent, detail=detail))
    return panels


def comparison_panels(runs: Sequence[Run], labels: Sequence[str]) -> list[Panel]:
    """Panels with one line per run, for every metric that at least one of the runs logged.

    Parts of a loss are drawn only if two runs share them; yardsticks are left to the tables.
    """
    described = {name: metric for run in runs for name, metric in run.described.items()}
    names = _ordered({name: None for run in runs for name in run.curves}, described)
    panels = []
    for name in names:
        metric = _metric(name, described)
        owners = [k for k, run in enumerate(runs) if name in run.curves]
        is_part = name.startswith("train/") and name != "train/loss"
        if metric.reference or (is_part and len(owners) < 2):
            continue
        title = metric.panel if metric.line in ("", "model", "samples") else f"{metric.line}: {metric.panel}"
        lines = [_line(runs[k], name, metric, labels[k], k) for k in owners]
        detail = _place(name, described)[0] > _LAST_RESULT
        panels.append(_panel(title, lines, percent=metric.percent, detail=detail))
    return panels


def _ordered(names: Iterable[str], described: Mapping[str, Metric]) -> list[str]:
    """Metrics in reading order: loss, evaluation as in the tables, parts of the loss, speed, secondary scores.

    Deviations are drawn with their metric, and what has no column in a table is drawn as bars, so neither is listed.
    """
    known = list(names)
    shown = [name for name in known if not (name.endswith("_std") and name.removesuffix("_std") in known)]
    drawn = (name for name in shown if not name.startswith("eval/") or _metric(name, described).table)
    return sorted(drawn, key=lambda name: _place(name, described))


_LAST_RESULT = 2
"""Places up to this one show what came of training, those behind it how training ran."""


def _place(name: str, described: Mapping[str, Metric]) -> tuple[int, tuple[int, ...]]:
    if name == "train/loss":
        return 0, ()
    if name.startswith("eval/"):
        metric = _metric(name, described)
        table = metric.table or OTHER
        return (5 if table.secondary else 1), (table.order, *metric.order)
    if name in _MONITORS:
        return 3, ()
    return (2 if name.startswith(("train/", "online/")) else 4), ()


def _metric(name: str, described: Mapping[str, Metric]) -> Metric:
    named = {
        "train/loss": Metric(table=None, column="", panel="Training loss", line="", format=".4g"),
        **_MONITORS,
        "optim/grad_norm": Metric(table=None, column="", panel="Norm of the gradient", line="", format=".3g"),
        "optim/lr": Metric(table=None, column="", panel="Learning rate", line="", format=".3g"),
        "perf/samples_per_sec": Metric(table=None, column="", panel="Samples per second", line="", format=",.0f"),
        "perf/tokens_per_sec": Metric(
            table=None, column="", panel="Tokens per second, without padding", line="", format=",.0f"
        ),
        "data/unknown_share": Metric(table=None, column="", panel="Unknown tokens, %", line="", percent=True),
        "data/padding_share": Metric(table=None, column="", panel="Padding, % of tokens", line="", percent=True),
        "perf/data_wait_frac": Metric(
            table=None, column="", panel="Waiting for data, % of time", line="", percent=True
        ),
        "perf/evaluation_frac": Metric(table=None, column="", panel="Evaluation, % of time", line="", percent=True),
        "perf/tflops": Metric(table=None, column="", panel="Operations, 1e12 per second", line="", format=".3g"),
        "perf/mfu": Metric(table=None, column="", panel="Operations, % of the device's peak", line="", percent=True),
        "perf/memory_gib": Metric(table=None, column="", panel="Memory of the process, GiB", line="", format=".2f"),
        "perf/gpu_memory_gib": Metric(table=None, column="", panel="Memory of the GPU, GiB", line="", format=".2f"),
    }
    if name in named:
        return named[name]
    if name.startswith("train/"):
        part = name.removeprefix("train/").replace("_", " ")
        return Metric(table=None, column="", panel=f"Part of the loss: {part}", line="", format=".4g")
    return describe(name.removeprefix("eval/"), described)


def _line(run: Run, name: str, metric: Metric, label: str, color: int) -> Line:
    curve = run.curves[name]
    scale = 100.0 if metric.percent else 1.0
    deviations = run.curves.get(f"{name}_std")
    by_step = dict(zip(deviations.steps, deviations.values, strict=True)) if deviations else {}
    known = all(step in by_step for step in curve.steps)
    return Line(
        label=label,
        curve=Curve(steps=curve.steps, values=tuple(scale * value for value in curve.values)),
        last=metric.show(curve.values[-1]),
        color=color,
        reference=bool(metric.reference),
        deviation=tuple(scale * by_step[step] for step in curve.steps) if known and by_step else (),
    )


@matplotlib.rc_context(_DEFAULTS)
def _panel(title: str, lines: Sequence[Line], *, percent: bool, detail: bool) -> Panel:
    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))
    axes = figure.add_axes((40 / _WIDTH, 22 / _HEIGHT, 1 - 48 / _WIDTH, 1 - 34 / _HEIGHT))
    own = [line for line in lines if not line.reference]
    for line in lines:
        _draw(axes, line, with_value=len(own) == 1)
    _style(axes, [value for line in lines for value in line.curve.values if math.isfinite(value)], percent=percent)
    return Panel(title=title, lines=tuple(lines), svg=_svg(figure, title), detail=detail)


def _draw(axes: Axes, line: Line, *, with_value: bool) -> None:
    """Draw a line. A single measurement is a large dot, with its value beside it if asked; a single yardstick is a level."""
    color = _COLORS[line.color % NUM_COLORS]
    dash = (0, (4, 3)) if line.reference else _DASHES[line.color // NUM_COLORS % len(_DASHES)]
    curve = thinned(line.curve, _MAX_POINTS)
    if len(line.curve.steps) == 1 and line.reference:
        axes.axhline(line.curve.values[0], color=color, linestyle=dash, linewidth=1.6)
    elif len(line.curve.steps) == 1:
        step, value = line.curve.steps[0], line.curve.values[0]
        axes.errorbar(step, value, yerr=line.deviation or None, color=color, marker="o", markersize=8, linewidth=1.6)
        if with_value and math.isfinite(value):
            axes.annotate(
                line.last, (step, value), (-9, 0), textcoords="offset points", ha="right", va="center", color=_MUTED
            )
    elif len(line.curve.steps) < _SMOOTH_FROM:
        dots = "o" if len(line.curve.steps) <= 25 and not line.reference else ""
        axes.plot(curve.steps, curve.values, color=color, linestyle=dash, linewidth=1.6, marker=dots, markersize=3)
        if line.deviation:
            low = [v - d for v, d in zip(line.curve.values, line.deviation, strict=True)]
            high = [v + d for v, d in zip(line.curve.values, line.deviation, strict=True)]
            axes.fill_between(line.curve.steps, low, high, color=color, alpha=0.12, linewidth=0)
    else:
        axes.plot(curve.steps, curve.values, color=color, linewidth=0.8, alpha=0.3)
        axes.plot(curve.steps, _running_mean(curve.values), color=color, linestyle=dash, linewidth=1.6)


def thinned(curve: Curve, max_points: int) -> Curve:
    """At most ``max_points`` points, each the mean of neighbouring ones, so that all parts of the curve count."""
    size = -(-len(curve.steps) // max_points)
    starts = range(0, len(curve.steps), size)
    return Curve(
        steps=tuple(curve.steps[min(start + size, len(curve.steps)) - 1] for start in starts),
        values=tuple(_mean(curve.values[start : start + size]) for start in starts),
    )


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a twentieth of the curve, narrower towards both ends to avoid bending them."""
    reach = max(1, len(values) // 40)
    smooth = []
    for k in range(len(values)):
        near = min(reach, k, len(values) - 1 - k)
        smooth.append(_mean(values[k - near : k + near + 1]))
    return smooth


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _style(axes: Axes, values: Sequence[float], *, percent: bool) -> None:
    if values and not percent and min(values) > 0 and max(values) / min(values) > 100:
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=3))
        if values and max(map(abs, values)) >= 10_000:
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        else:
            axes.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
    axes.set_xlim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.tick_params(which="both", length=0, labelsize=10, labelcolor=_MUTED, pad=5)
    axes.yaxis.offsetText.set(color=_MUTED, fontsize=9)


def _svg(figure: Figure, title: str) -> Markup:
    """The figure as SVG inside a page: with the page's font and colours, without ids and fixed size."""
    text = io.StringIO()
    without: Mapping[str, None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ssl_lab"}):
        figure.savefig(text, format="svg", transparent=True, metadata=without)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<svg[^>]*>", f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">', svg, count=1)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ?([\d.]+px)[^;\"]*|font-size: ?([\d.]+px); font-family: [^;]*", _font_size, svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    label = Markup('<svg aria-label="{}" ').format(f"Curve: {title}")
    return Markup(svg.replace("<svg ", label, 1))  # noqa: S704 - numbers only; the title is escaped above


def _font_size(match: re.Match[str]) -> str:
    return f"font-size: {match[1] or match[2]}"
