"""Plots of a report as inline SVG."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedhealth.reporting.console import LABELS, auroc_rows, model_order
from fedhealth.reporting.report import Report, StudyReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#b3541e", "#4b7f52", "#7a4b8c", "#946b2d", "#5c5c5c", "#a33b4a")


def comparison_svg(report: Report) -> str:
    """AUROC of every model with its 95% interval, one panel per outcome."""
    figure = _figure(width=9.0, height=1.0 + 0.42 * len(model_order(report)))
    axes = figure.subplots(1, len(report.studies), sharey=True, squeeze=False)[0]
    models = list(reversed(model_order(report)))
    for axis, study in zip(axes, report.studies, strict=True):
        for height, model in enumerate(models):
            row = auroc_rows(report).get((model, study.outcome))
            if row is None or row.value is None:
                continue
            low, high = (
                row.low if row.low is not None else row.value,
                row.high if row.high is not None else row.value,
            )
            colour = COLOURS[list(LABELS).index(model) % len(COLOURS)]
            axis.plot([low, high], [height, height], color=colour, linewidth=3, alpha=0.45)
            axis.plot([row.value], [height], "o", color=colour)
        axis.set_title(study.outcome)
        axis.set_xlabel("AUROC")
        axis.set_yticks(range(len(models)), [LABELS[model] for model in models])
        axis.grid(axis="x", alpha=0.3)
    return _svg(figure)


def rounds_svg(studies: Sequence[StudyReport]) -> str:
    """Pooled AUROC of the registered model by round."""
    figure = _figure(width=9.0, height=3.2)
    axis = figure.subplots()
    for colour, study in zip(COLOURS, studies, strict=False):
        points = [(each.round, each.auroc) for each in study.rounds_figures if each.auroc is not None]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=study.outcome)
    axis.set_xlabel("round (the model it opened with)")
    axis.set_ylabel("pooled AUROC")
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
    return _svg(figure)


def seconds_svg(seconds: dict[str, float]) -> str:
    """Where the time went."""
    figure = _figure(width=9.0, height=0.8 + 0.32 * len(seconds))
    axis = figure.subplots()
    names = list(reversed(seconds))
    axis.barh(names, [seconds[name] for name in names], color=COLOURS[0])
    axis.set_xlabel("seconds")
    axis.grid(axis="x", alpha=0.3)
    return _svg(figure)


def _figure(*, width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: "Figure") -> str:
    """The figure as an SVG element, the same bytes for the same data."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "fedhealth", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=False)
    text = out.getvalue()
    return text[text.index("<svg") :]
