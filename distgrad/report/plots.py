"""The curves of runs, each chart an SVG that stands in a page by itself."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.errors import MissingExtraError
from distgrad.report.run import Run, Series

# Okabe and Ito's, told apart by every eye and in grey: of runs, or of the parts of a single one.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#A0522D")
_PHASES = {
    "compute": "#0072B2",
    "compute and communication": "#56B4E9",
    "communication": "#D55E00",
    "data": "#E69F00",
}
_STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "distgrad",  # the same curves give the same file
    "figure.constrained_layout.use": True,
}
_WIDTH, _HEIGHT = 5.6, 3.1
_POINTS = 400  # of a curve; what lies between them is a band
_FEW = 40  # points of a curve that are shown as they are
_TALL = 20.0  # from which ratio of the largest to the smallest loss on the axis is logarithmic


class Chart(NamedTuple):
    """A title, and the picture below it."""

    title: str
    svg: str


def charts(runs: Sequence[Run]) -> list[Chart]:
    """All charts for which there is something to draw, of one run or of several together.

    Raises MissingExtraError where matplotlib is not installed.
    """
    figure = _figure_class()
    drawings: list[tuple[str, Callable[[Any, Sequence[Run]], bool]]] = [("Loss", _loss)]
    names = dict.fromkeys(name for run in runs for name in run.metric_names if name != "loss")
    drawings += [(_title(name), partial(_metric, name=name)) for name in names]
    drawings += [
        ("Learning rate", _learning_rate),
        ("Throughput", _throughput),
        ("Time per step", _step_time),
        ("Where the time goes", _phases),
    ]
    found = []
    for number, (title, draw) in enumerate(drawings):
        with _matplotlib().rc_context(_STYLE):
            made = figure(figsize=(_WIDTH, _HEIGHT))
            if draw(made.add_subplot(), runs):
                found.append(Chart(title, _svg(made, title, f"c{number}")))
    return found


def _loss(axes: Any, runs: Sequence[Run]) -> bool:
    seen: list[float] = []
    for run, colour in _each(runs):
        series = run.by_step("loss")
        _trend(axes, series, colour, "training", np.mean)
        seen += series[1]
    for run, colour in _each(runs, "validation"):
        series = run.by_epoch("val_loss", steps=True)
        _dots(axes, series, colour, "validation")
        seen += series[1]
    for run, colour in _each(runs, "test"):
        seen += _end(axes, run, "loss", colour, last=run.status.get("step", 0))
    if seen and min(seen) > 0 and max(seen) > _TALL * min(seen):
        _logarithmic(axes, seen)
    return _finish(axes, runs, "step", "loss", seen)


def _metric(axes: Any, runs: Sequence[Run], name: str) -> bool:
    seen: list[float] = []
    for prefix, part in (("", "training"), ("val_", "validation")):
        for run, colour in _each(runs, part):
            series = run.by_epoch(prefix + name)
            _dots(axes, series, colour, part, dashed=part == "validation")
            seen += series[1]
    for run, colour in _each(runs, "test"):
        seen += _end(axes, run, name, colour, last=max(run.by_epoch(name)[0], default=1))
    _whole_numbers(axes.xaxis)
    return _finish(axes, runs, "epoch", name.replace("_", " "), seen)


def _learning_rate(axes: Any, runs: Sequence[Run]) -> bool:
    seen: list[float] = []
    for run, colour in _each(runs):
        series = run.by_step("learning_rate")
        _curve(axes, series, colour)
        seen += series[1]
    axes.set_ylim(0, 1.08 * max(seen, default=1.0) or 1.0)
    return _finish(axes, runs, "step", "learning rate", seen)


def _throughput(axes: Any, runs: Sequence[Run]) -> bool:
    return _pace(axes, runs, "samples per second", lambda line: line["samples"] / line["seconds"])


def _step_time(axes: Any, runs: Sequence[Run]) -> bool:
    return _pace(axes, runs, "ms per step", lambda line: 1e3 * line["seconds"] / line["steps"])


def _pace(axes: Any, runs: Sequence[Run], label: str, value: Callable[[Any], float]) -> bool:
    seen: list[float] = []
    for run, colour in _each(runs):
        lines = [line for line in run.paces if line["seconds"] > 0]
        values = [value(line) for line in lines]
        _trend(axes, ([line["step"] for line in lines], values), colour, "", np.median)
        seen += values
    if seen:  # a moment in which the machine had something else to do shall not flatten the rest
        axes.set_ylim(0, 1.3 * float(np.percentile(seen, 95, method="lower")))
    return _finish(axes, runs, "step", label, seen)


def _phases(axes: Any, runs: Sequence[Run]) -> bool:
    known = [phases(run) for run in runs]
    if not all(known):
        return False
    longest = max(sum(found.values()) for found in known)
    for row, found in enumerate(known):
        left = 0.0
        for name, width in found.items():
            bar = axes.barh(row, width, 0.6, left, color=_PHASES[name], label=name)
            if width > 0.16 * longest:
                text = f"{_milliseconds(width)} ({100 * width / sum(found.values()):.0f} %)"
                axes.bar_label(bar, [text], label_type="center", color="white", fontsize=8)
            left += width
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.set_yticks(range(len(known)), [f"run {row + 1}" for row in range(len(known))])
    axes.yaxis.set_visible(len(known) > 1)
    axes.xaxis.set_major_formatter(_plain)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("ms per step, mean on rank 0")
    axes.figure.set_figheight(1.1 + 0.4 * len(known))
    _legend(axes)
    return True


def phases(run: Run) -> dict[str, float]:
    """Milliseconds of a step by phase, the mean over a run; empty where they are not known."""
    steps = sum(line["steps"] for line in run.paces)
    if not steps:
        return {}
    total, data = (1e3 * sum(line[n] for line in run.paces) / steps for n in ("seconds", "data"))
    if run.status.get("world_size") == 1:
        return {"compute": total - data, "data": data}
    if not all("communication" in line for line in run.paces):
        return {"compute and communication": total - data, "data": data}
    between = 1e3 * sum(line["communication"] for line in run.paces) / steps
    return {"compute": total - data - between, "communication": between, "data": data}


def _milliseconds(value: float) -> str:
    """Milliseconds in a bar."""
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def _each(runs: Sequence[Run], part: str = "") -> Iterator[tuple[Run, str]]:
    """Every run and its colour: that of the part, where there is but one."""
    own = {"validation": 1, "test": 2}.get(part, 0)
    for place, run in enumerate(runs):
        yield run, COLOURS[(own if len(runs) == 1 else place) % len(COLOURS)]


def _curve(axes: Any, series: Series, colour: str, label: str = "") -> None:
    """A line through all points, of which there are at most so many."""
    _, x, y, _ = _thinned(series)
    if len(x):
        marker = {"marker": "o", "markersize": 3} if len(x) < 12 else {}
        axes.plot(x, y, color=colour, label=label or None, **marker)


def _trend(axes: Any, series: Series, colour: str, label: str, middle: Callable[..., Any]) -> None:
    """A line through the middle of neighbours, over all that there is, pale."""
    low, x, y, high = _thinned(series)
    if len(x) < _FEW:
        _curve(axes, series, colour, label)
        return
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
    width = max(3, len(y) // 40) | 1
    padded = np.pad(y, width // 2, mode="reflect")
    smooth = middle(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    axes.plot(x, smooth, color=colour, label=label or None)


def _thinned(series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The least value, the place, the mean and the largest value of neighbours."""
    x, y = (np.asarray(each, float) for each in series)
    if len(x) <= 2 * _POINTS:
        return y, x, y, y
    edges = np.linspace(0, len(x), _POINTS + 1).astype(int)[:-1]
    counts = np.diff([*edges, len(x)])
    low, high = np.minimum.reduceat(y, edges), np.maximum.reduceat(y, edges)
    return low, np.add.reduceat(x, edges) / counts, np.add.reduceat(y, edges) / counts, high


def _dots(axes: Any, series: Series, colour: str, label: str, dashed: bool = True) -> None:
    x, y = series
    if x:
        marker = {"marker": "o", "markersize": 3} if len(x) <= 30 else {}
        line = "--" if dashed else "-"
        axes.plot(x, y, line, color=colour, label=label or None, **marker)


def _end(axes: Any, run: Run, name: str, colour: str, *, last: float) -> list[float]:
    """What the test at the end has given, after ``last`` steps or epochs."""
    value = run.at_end(f"test_{name}")
    if value is None:
        return []
    look = {"markersize": 6, "markeredgecolor": "white", "clip_on": False, "zorder": 3}
    axes.plot([last], [value], "D", color=colour, label="test", **look)
    return [value]


def _finish(axes: Any, runs: Sequence[Run], x: str, y: str, seen: Sequence[float]) -> bool:
    """Names and numbers on the axes; whether anything was drawn."""
    if not seen:
        return False
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_formatter(_plain)
    axes.xaxis.set_major_formatter(_plain)
    if x == "step":
        _whole_numbers(axes.xaxis)
    _legend(axes, colours=len(runs) == 1)
    return True


def _legend(axes: Any, colours: bool = True) -> None:
    """Above the axes, where no curve is; grey where the colours are those of runs."""
    handles, labels = axes.get_legend_handles_labels()
    known = dict(zip(reversed(labels), reversed(handles), strict=True))  # the first of each
    if not known:
        return
    labels = list(dict.fromkeys(labels))
    legend = axes.legend(
        [known[label] for label in labels],
        labels,
        ncols=len(labels),
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        borderaxespad=0,
    )
    for handle in legend.legend_handles if not colours else ():
        handle.set_color("#555555")


def _plain(value: float, position: int) -> str:
    """A number on an axis: 20,000 and 0.003, neither exponents nor offsets."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _logarithmic(axes: Any, seen: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    bottom = float(np.percentile(seen, 0.5))  # one lucky batch is no floor
    axes.set_ylim(bottom=0.8 * bottom)
    subs = (1, 2, 5) if max(seen) < 500 * bottom else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _svg(figure: Any, title: str, mark: str) -> str:
    """The picture as an element of a page; ``mark`` keeps its names from those of the others."""
    out = io.StringIO()
    figure.savefig(out, format="svg")
    text = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{mark}-", text[text.index("<svg") :])
    head = rf'<svg role="img" aria-label="{escape(title)}" \1>'
    return re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', head, text, count=1)


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError(
            "the report needs matplotlib: pip install 'distgrad[report]'"
        ) from None
    return matplotlib


def _figure_class() -> Any:
    _matplotlib()
    from matplotlib.figure import Figure

    return Figure
