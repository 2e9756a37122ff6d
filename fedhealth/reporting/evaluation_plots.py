"""Plots of how the registered model does: calibration, decision curve, subgroups. SVG, narrow enough for a phone."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from fedhealth.evaluation import Table
from fedhealth.reporting.plots import COLOURS, NARROW, draw_chance, draw_interval, new_figure, svg_of
from fedhealth.reporting.report import SubgroupRow
from fedhealth.reporting.words import SUPPRESSED, WITHHELD

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def calibration_svg(table: Table) -> str:
    """Observed rate against mean score, by the cells of a calibration table."""
    figure = new_figure(width=NARROW, height=3.4)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="perfect")
    points = _points(table, ("mean_score", "observed"))
    _curve(axis, points, colour=COLOURS[0], label="model", marker="o")
    top = min(1.0, 1.1 * max([0.1, *(each for point in points for each in point)]))
    axis.set_xlim(0.0, top)
    axis.set_ylim(0.0, top)
    _finish(axis, xlabel="mean score", ylabel="observed rate", is_empty=not points)
    return svg_of(figure)


def decision_svg(table: Table) -> str:
    """Net benefit of the model, of treating all and of treating none, by threshold; far below 0 it is cut off."""
    figure = new_figure(width=NARROW, height=3.4)
    axis = figure.subplots()
    model, everybody = (_points(table, ("threshold", name)) for name in ("model", "all"))
    axis.axhline(0.0, color="black", linewidth=0.8, linestyle=":", label="treat none")
    _curve(axis, everybody, colour=COLOURS[1], label="treat all")
    _curve(axis, model, colour=COLOURS[0], label="model", marker="o")
    top = 1.1 * max([0.05, *(y for _, y in (*model, *everybody))])
    axis.set_xlim(0.0, 1.1 * max([0.1, *(x for x, _ in model)]))
    axis.set_ylim(-0.3 * top, top)
    _finish(axis, xlabel="threshold", ylabel="net benefit", is_empty=not model)
    return svg_of(figure)


def subgroups_svg(rows: Sequence[SubgroupRow], *, overall: float | None = None) -> str:
    """One outcome's metric with its 95% interval in every band; dashed: everybody's, if told.

    Args:
      rows: of one outcome, at least one.
      overall: the metric of all together.
    """
    figure = new_figure(width=NARROW, height=0.9 + 0.27 * len(rows))
    axis = figure.subplots()
    heights = range(len(rows) - 1, -1, -1)
    for height, row in zip(heights, rows, strict=True):
        told = (row.value, row.low, row.high)
        draw_interval(axis, height, told, colour=COLOURS[0], otherwise=WITHHELD)
    draw_chance(axis, rows[0].metric, overall=overall)
    axis.set_yticks(heights, [_band(row) for row in rows])
    for subgrouping, members in groupby(zip(heights, rows, strict=True), lambda each: each[1].subgrouping):
        last = min(height for height, _ in members)
        if subgrouping != rows[-1].subgrouping:
            axis.axhline(last - 0.5, color="black", linewidth=0.4)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    return svg_of(figure)


def _band(row: SubgroupRow) -> str:
    return f"{row.subgrouping} {row.band}".replace("_", " ")


def _points(table: Table, names: tuple[str, str]) -> list[tuple[float, float]]:
    """One column over another where both are told."""
    pairs = [(row[names[0]], row[names[1]]) for row in table]
    return [(x, y) for x, y in pairs if isinstance(x, float) and isinstance(y, float)]


def _curve(
    axis: "Axes", points: list[tuple[float, float]], *, colour: str, label: str, marker: str = ""
) -> None:
    if points:
        axis.plot([x for x, _ in points], [y for _, y in points], color=colour, label=label, marker=marker)


def _finish(axis: "Axes", *, xlabel: str, ylabel: str, is_empty: bool) -> None:
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    if is_empty:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(0.5, 0.5, SUPPRESSED, ha="center", va="center", transform=axis.transAxes)
