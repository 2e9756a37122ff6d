"""Plots of a report as inline SVG."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedhealth.reporting.report import RoundFigures, StudyReport
from fedhealth.reporting.words import MODELS, SUPPRESSED, Column, Line, metric_name, row_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#b3541e", "#4b7f52", "#9a62ae", "#946b2d", "#7a7a7a", "#b84a5a")
CHANCE = {"auroc": (0.5, "chance"), "c_index": (0.5, "chance"), "r2": (0.0, "the mean")}
"""By metric, what a model without any information reaches, and how it is called."""
NARROW = 4.2
"""Inches of a plot that fits a phone."""


def comparison_svg(column: Column, lines: Sequence[Line]) -> str:
    """Every line's figure in one column of the comparison, with its 95% interval."""
    lines = [line for line in reversed(lines) if row_of(column, line) is not None]
    figure = new_figure(width=NARROW, height=1.0 + 0.4 * len(lines))
    axis = figure.subplots()
    for height, line in enumerate(lines):
        if (row := row_of(column, line)) is not None:
            colour = COLOURS[list(MODELS).index(line.model) % len(COLOURS)]
            draw_interval(axis, height, (row.value, row.low, row.high), colour=colour)
    axis.set_title(column.outcome)
    draw_chance(axis, column.metric)
    axis.set_yticks(range(len(lines)), [_two_lines(line.label) for line in lines])
    axis.set_ylim(-0.6, len(lines) - 0.4)
    return svg_of(figure)


def rounds_svg(studies: Sequence[StudyReport]) -> str:
    """The registered model by round, one panel per metric, one line per study and outcome."""
    from matplotlib.ticker import MaxNLocator

    lines = [line for study in studies for line in _lines(study)]
    metrics = list(dict.fromkeys(metric for metric, _, _ in lines))
    figure = new_figure(width=9.0, height=3.2)
    for axis, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        own = [(label, points) for each, label, points in lines if each == metric]
        for number, (label, points) in enumerate(own):
            name = label if points else f"{label}: {SUPPRESSED}"
            colour = COLOURS[number % len(COLOURS)]
            axis.plot([x for x, _ in points], [y for _, y in points], marker="o", color=colour, label=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlim(0.5, max(len(study.rounds_figures) for study in studies) + 0.5)
        if not any(points for _, points in own):
            axis.set_yticks([])
        axis.set_xlabel("round (the model it opened with)")
        axis.set_ylabel(f"pooled {metric_name(metric)}")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return svg_of(figure)


def seconds_svg(seconds: dict[str, float]) -> str:
    """Where the time went."""
    figure = new_figure(width=9.0, height=0.8 + 0.32 * len(seconds))
    axis = figure.subplots()
    names = list(reversed(seconds))
    axis.barh(names, [seconds[name] for name in names], color=COLOURS[0])
    axis.set_xlabel("seconds")
    axis.grid(axis="x", alpha=0.3)
    return svg_of(figure)


def draw_interval(
    axis: "Axes",
    height: float,
    told: tuple[float | None, float | None, float | None],
    *,
    colour: str,
    otherwise: str = SUPPRESSED,
) -> None:
    """A figure with its interval at a height of the axis, or the words that it is suppressed."""
    value, low, high = told
    if value is None:
        across = axis.get_yaxis_transform()
        axis.text(0.5, height, otherwise, size=8, transform=across, ha="center", va="center")
        return
    ends = [value if low is None else low, value if high is None else high]
    axis.plot(ends, [height, height], color=colour, linewidth=3, alpha=0.6)
    axis.plot([value], [height], "o", color=colour)


def draw_chance(axis: "Axes", metric: str, *, overall: float | None = None) -> None:
    """Name the axis of a metric, with a dotted line where a model knows nothing, a dashed one for everybody."""
    place, lines = CHANCE.get(metric), []
    if place:
        axis.axvline(place[0], color="black", linewidth=0.8, linestyle=":")
        lines.append(f"dotted: {place[1]}")
    if overall is not None:
        axis.axvline(overall, color=COLOURS[1], linewidth=1.0, linestyle="--")
        lines.append("dashed: all")
    axis.set_xlabel(metric_name(metric) + (f" ({', '.join(lines)})" if lines else ""))
    axis.grid(axis="x", alpha=0.3)


def new_figure(*, width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg_of(figure: "Figure") -> str:
    """The figure as an SVG element, the same bytes for the same data; what is black takes the page's colour of text."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "fedhealth", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue().replace("#000000", "currentColor")
    return text[text.index("<svg") :]


def _two_lines(label: str) -> str:
    """A label that leaves room for its figure."""
    return label.replace(" (", "\n(") if " (" in label else label.replace(", ", ",\n", 1)


def _lines(study: StudyReport) -> list[tuple[str, str, list[tuple[int, float]]]]:
    """Metric, label and points of every outcome of a study."""
    metrics = {row.outcome: row.metric for row in reversed(study.comparison)}
    found = []
    for outcome in study.outcome_names:
        values = [(each.round, _of_round(each, outcome, study)) for each in study.rounds_figures]
        points = [(number, value) for number, value in values if value is not None]
        found.append((metrics.get(outcome, "auroc"), outcome, points))
    return found


def _of_round(each: RoundFigures, outcome: str, study: StudyReport) -> float | None:
    """An outcome's figure in a round; older reports know one study-wide AUROC."""
    if each.figures or outcome != study.outcome:
        return each.figures.get(outcome)
    return each.auroc
