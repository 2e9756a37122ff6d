"""Plots of a report as inline SVG."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedhealth.reporting.console import LABELS, SUPPRESSED, auroc_rows, model_order
from fedhealth.reporting.report import Report, StudyReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#b3541e", "#4b7f52", "#9a62ae", "#946b2d", "#7a7a7a", "#b84a5a")


def comparison_svg(report: Report) -> str:
    """AUROC of every model with its 95% interval, one panel per outcome."""
    figure = _figure(width=9.0, height=1.0 + 0.45 * len(model_order(report)))
    axes = figure.subplots(1, len(report.studies), sharey=True, squeeze=False)[0]
    models = list(reversed(model_order(report)))
    for axis, study in zip(axes, report.studies, strict=True):
        for height, model in enumerate(models):
            row = auroc_rows(report).get((model, study.study))
            if row is None:
                continue
            if row.value is None:
                place = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "center"}
                axis.text(0.97, height, SUPPRESSED, size=8, **place)
                continue
            low, high = (
                row.low if row.low is not None else row.value,
                row.high if row.high is not None else row.value,
            )
            colour = COLOURS[list(LABELS).index(model) % len(COLOURS)]
            axis.plot([low, high], [height, height], color=colour, linewidth=3, alpha=0.6)
            axis.plot([row.value], [height], "o", color=colour)
        axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(study.outcome)
        axis.set_xlabel("AUROC (dotted: chance)")
        axis.set_yticks(range(len(models)), [LABELS[model].replace(" (", "\n(") for model in models])
        axis.set_ylim(-0.6, len(models) - 0.4)
        axis.grid(axis="x", alpha=0.3)
    return _svg(figure)


def rounds_svg(studies: Sequence[StudyReport]) -> str:
    """Pooled AUROC of the registered model by round."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(width=9.0, height=3.2)
    axis = figure.subplots()
    for colour, study in zip(COLOURS, studies, strict=False):
        points = [(each.round, each.auroc) for each in study.rounds_figures if each.auroc is not None]
        label = study.outcome if points else f"{study.outcome}: {SUPPRESSED}"
        axis.plot([x for x, _ in points], [y for _, y in points], marker="o", color=colour, label=label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlim(0.5, max(len(study.rounds_figures) for study in studies) + 0.5)
    if all(each.auroc is None for study in studies for each in study.rounds_figures):
        axis.set_yticks([])
    axis.set_xlabel("round (the model it opened with)")
    axis.set_ylabel("pooled AUROC")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
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
    """The figure as an SVG element, the same bytes for the same data; what is black takes the page's colour of text."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "fedhealth", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue().replace("#000000", "currentColor")
    return text[text.index("<svg") :]
