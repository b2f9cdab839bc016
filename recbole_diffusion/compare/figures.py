"""The figures of a comparison, made from its rows and runs. Each figure is about one data set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from recbole_diffusion.compare.popularity import is_pop, is_reference, not_above
from recbole_diffusion.compare.run import Run
from recbole_diffusion.compare.summary import Record, label
from recbole_diffusion.compare.values import by_label, user_means
from recbole_diffusion.evaluation.collapse import paired_differences
from recbole_diffusion.evaluation.users import smaller_is_better

# Okabe and Ito's colours, without the yellow that is lost on white. Symbols and dashes repeat after another number, so
# that no two models share both: a symbol tells a model as well as a colour does.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "triangle-down")
_DASHES = ("solid", "dash", "dot", "dashdot")
_POP_LINE = {"dash": "dot", "color": "#777777", "width": 1}
# Metrics of diversity, with units; each that was computed gets a panel.
_DIVERSITY = {
    "ild": "ILD@{k} (0 to 1)",
    "embeddingild": "EmbeddingILD@{k} (0 to 2)",
    "categorycoverage": "CategoryCoverage@{k} (share of categories)",
    "categoryentropy": "CategoryEntropy@{k} (bits)",
    "shannonentropy": "ShannonEntropy@{k} (nats)",
    "tailpercentage": "TailPercentage@{k} (share of the list)",
    "itemcoverage": "ItemCoverage@{k} (share of items)",
    "giniindex": "GiniIndex@{k} (less is more even)",
    "novelty": "Novelty@{k} (bits)",
    "averagepopularity": "AveragePopularity@{k} (interactions)",
}
_PANEL = 320  # height of a line of panels, in pixels like all sizes here
_GAP = 95  # the part of it between two lines
_LEGEND = 70  # below the panels
_MARGINS = (40, 60)  # above and below the panels
_BINS = 10  # of differences to either side of zero


class Figure(NamedTuple):
    """A picture with the name of its file, its title, and a note that helps to read it."""

    name: str
    title: str
    note: str
    figure: go.Figure


def draw(
    rows: Sequence[Mapping[str, Any]],
    records: Mapping[Run, Record],
    styles: Mapping[str, Mapping[str, Any]],
    baseline: str,
    metric: str,
    shown: Callable[[str], str],
) -> list[Figure]:
    """The figures of one data set. A figure without numbers is left out.

    Args:
        rows: the data set's, from :func:`recbole_diffusion.compare.summary.summarise`.
        records: the finished runs of the data set.
        styles: how each model looks, from :func:`styles`.
        baseline: label of the model that the others are compared with.
        metric: the metric of accuracy, ``ndcg@10``.
        shown: from the names in results to those in the settings, from :func:`tables.metric_names`.
    """
    made = (
        _diversity(rows, styles, metric, shown),
        _cost(rows, styles, metric, shown),
        _curves(records, styles, metric, shown),
        _differences(records, baseline, metric, shown),
        _steps(records, styles, metric, shown),
    )
    return [figure for figure in made if figure is not None]


def styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, symbol and dash of each model, the same in all figures of a comparison."""
    return {
        name: {
            "color": _COLOURS[index % len(_COLOURS)],
            "symbol": _SYMBOLS[index % len(_SYMBOLS)],
            "dash": _DASHES[index // len(_COLOURS) % len(_DASHES)],
        }
        for index, name in enumerate(dict.fromkeys(labels))
    }


def _panels(
    titles: Sequence[str], x_titles: Sequence[str], columns: int, legend: bool = True
) -> tuple[go.Figure, list[tuple[int, int]]]:
    """A figure with a panel for each of ``titles``, and their (row, column). A title names the vertical axis."""
    columns = min(columns, len(titles))
    lines = math.ceil(len(titles) / columns)
    below = _LEGEND if legend else 0
    height = lines * _PANEL + below + sum(_MARGINS)
    gap = _GAP / (lines * _PANEL)
    figure = make_subplots(lines, columns, horizontal_spacing=0.16 / columns, vertical_spacing=gap)
    places = list(itertools.product(range(1, lines + 1), range(1, columns + 1)))[: len(titles)]
    for (row, column), title, x_title in zip(places, titles, x_titles, strict=True):
        figure.update_xaxes(title_text=x_title, title_standoff=6, row=row, col=column)
        figure.add_annotation(
            text=title, showarrow=False, x=0, y=1, yshift=8, xref="x domain", yref="y domain", xanchor="left",
            yanchor="bottom", font={"size": 12}, row=row, col=column,
        )  # fmt: skip
    figure.update_layout(
        template="simple_white",
        height=height,
        margin={"l": 60, "r": 20, "t": _MARGINS[0], "b": _MARGINS[1] + below},
        font={"size": 13},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -_MARGINS[1] / (lines * _PANEL), "yanchor": "top"},
    )
    return figure, places


def _log_axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis around ``values``; ticks at powers of ten, or also at 2 and 5 if those are too few."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1,) if high - low > 3 else (1, 2, 5)
    ticks = [float(f"{step}e{power}") for power in range(low, high + 1) for step in steps]
    first = max((tick for tick in ticks if tick < min(values)), default=min(values) / 2)
    last = min((tick for tick in ticks if tick > max(values)), default=max(values) * 2)
    return {"type": "log", "tickvals": ticks, "range": [math.log10(first), math.log10(last)]}


def _marker(style: Mapping[str, Any], size: int = 11, hollow: bool = False) -> dict[str, Any]:
    return {"color": style["color"], "symbol": style["symbol"] + "-open" * hollow, "size": size}


def _line(style: Mapping[str, Any]) -> dict[str, Any]:
    return {"color": style["color"], "dash": style["dash"], "width": 1.5}


def _named(name: str, in_legend: bool) -> dict[str, Any]:
    """One entry of the legend for a model's traces in all panels."""
    return {"name": name, "legendgroup": name, "showlegend": in_legend}


def _diversity(
    rows: Sequence[Mapping[str, Any]], styles: Mapping[str, Any], metric: str, shown: Callable[[str], str]
) -> Figure | None:
    rows, of_pop = _models(rows, metric)
    k = metric.partition("@")[2]
    measures = {f"{name}@{k}": text.format(k=k) for name, text in _DIVERSITY.items()}
    measures = {name: text for name, text in measures.items() if f"test_{name}_mean" in rows[0]}
    if not measures:
        return None
    figure, places = _panels(list(measures.values()), [f"test {shown(metric)}"] * len(measures), columns=3)
    for index, (name, (line, column)) in enumerate(zip(measures, places, strict=True)):
        for row in rows:
            style = styles[label(row)]
            figure.add_scatter(
                x=[row[f"test_{metric}_mean"]], error_x=_bar(row, metric, style),
                y=[row[f"test_{name}_mean"]], error_y=_bar(row, name, style), mode="markers",
                marker=_marker(style, hollow=not_above(row)), row=line, col=column, **_named(label(row), index == 0),
            )  # fmt: skip
        if of_pop is not None:
            figure.add_vline(x=of_pop, line=_POP_LINE, row=line, col=column)
    note = "Each point is a model; its bars are one standard deviation over training seeds. A diverse list that nobody "
    note += "likes is worth little, so look at the accuracy first."
    note += "" if of_pop is None else f" The dotted line is Pop's {shown(metric)}."
    if hollow := [label(row) for row in rows if not_above(row)]:
        note += f" Hollow: not above Pop, so its diversity is no merit ({', '.join(hollow)})."
    return Figure("diversity", "Accuracy against diversity", note, figure)


def _models(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[list[Mapping[str, Any]], float | None]:
    """The rows of the models, and Pop's value of ``metric``, which the reference row has if Pop is no model."""
    of_pop = next((row[f"test_{metric}_mean"] for row in rows if is_pop(row)), None)
    return [row for row in rows if not is_reference(row)], of_pop


def _bar(row: Mapping[str, Any], name: str, style: Mapping[str, Any]) -> dict[str, Any] | None:
    deviation = row[f"test_{name}_std"]
    return None if math.isnan(deviation) else {"array": [deviation], "thickness": 1, "color": style["color"]}


def _cost(
    rows: Sequence[Mapping[str, Any]], styles: Mapping[str, Any], metric: str, shown: Callable[[str], str]
) -> Figure:
    rows, of_pop = _models(rows, metric)
    costs = {"train_seconds": "seconds to train and validate", "seconds_per_1000_users": "seconds to rank 1,000 users"}
    figure, places = _panels([f"test {shown(metric)}"] * len(costs), list(costs.values()), columns=2)
    for index, (cost, (line, column)) in enumerate(zip(costs, places, strict=True)):
        for row in rows:
            style = styles[label(row)]
            figure.add_scatter(
                x=[row[cost]], y=[row[f"test_{metric}_mean"]], error_y=_bar(row, metric, style),
                mode="markers", marker=_marker(style), row=line, col=column, **_named(label(row), index == 0),
            )  # fmt: skip
        if of_pop is not None:
            figure.add_hline(y=of_pop, line=_POP_LINE, row=line, col=column)
        figure.update_xaxes(**_log_axis([row[cost] for row in rows]), row=line, col=column)
    note = "Bars are one standard deviation over training seeds. The axes of time are logarithmic."
    note += "" if of_pop is None else f" The dotted line is Pop's {shown(metric)}."
    return Figure("cost", "Quality against cost", note, figure)


def _curves(
    records: Mapping[Run, Record], styles: Mapping[str, Any], metric: str, shown: Callable[[str], str]
) -> Figure | None:
    axes = ["epoch", "seconds of training"]
    figure, places = _panels([f"validation {shown(metric)}"] * len(axes), axes, columns=2)
    drawn: set[str] = set()
    spent: list[float] = []
    for run, record in records.items():
        curve = [entry for entry in record["history"] if metric in entry["valid"]]
        if len(curve) < 2:
            continue  # trained in one pass
        style = styles[run.label]
        epochs = np.array([entry["epoch"] + 1 for entry in curve])
        seconds = np.cumsum(np.diff(epochs, prepend=0) * [entry["train_seconds"] for entry in curve])
        spent += [seconds[0], seconds[-1]]
        for x, (line, column) in zip((epochs, seconds), places, strict=True):
            figure.add_scatter(
                x=x, y=[entry["valid"][metric] for entry in curve], mode="lines", opacity=0.8, line=_line(style),
                row=line, col=column, **_named(run.label, run.label not in drawn),
            )  # fmt: skip
            drawn.add(run.label)
    if not drawn:
        return None
    figure.update_xaxes(**_log_axis(spent), row=1, col=2)
    figure.update_yaxes(rangemode="tozero")
    note = "One line per training seed. Seconds are those of training alone: the number of epochs times the seconds of "
    note += "the last epoch before each validation."
    return Figure("curves", "Training curves", note, figure)


def _differences(
    records: Mapping[Run, Record], baseline: str, metric: str, shown: Callable[[str], str]
) -> Figure | None:
    own = by_label(records)
    if baseline not in own or len(own) < 2:
        return None
    reference = user_means(own[baseline], metric)
    differences = {
        name: paired_differences(user_means(runs, metric), reference) for name, runs in own.items() if name != baseline
    }
    differences = {name: of_users for name, of_users in differences.items() if len(of_users)}
    if not differences:
        return None
    better_up = not smaller_is_better(metric)
    titles = [f"<b>{name}</b> {_shares(of_users, better_up)}" for name, of_users in differences.items()]
    figure, places = _panels(titles, [f"difference in {shown(metric)}"] * len(titles), columns=3, legend=False)
    largest = max(float(of_users.abs().max()) for of_users in differences.values())
    width = (largest or 1) / _BINS
    centres = np.arange(-_BINS, _BINS + 1) * width
    for (name, of_users), (line, column) in zip(differences.items(), places, strict=True):
        counts, _ = np.histogram(of_users, np.append(centres - width / 2, centres[-1] + width / 2))
        colours = np.where(centres == 0, "#999999", np.where((centres > 0) == better_up, "#0072B2", "#D55E00"))
        figure.add_bar(
            x=centres, y=counts, width=width * 0.9, marker_color=list(colours),
            showlegend=False, row=line, col=column, name=name,
        )  # fmt: skip
        figure.update_yaxes(**_log_axis([1, counts.max()]), row=line, col=column)
    note = f"Difference from {baseline} in each user's {shown(metric)}, averaged over seeds. The bars count "
    note += "the users. Blue: the model is better. Orange: the baseline is better. Grey: equal or nearly so."
    return Figure("differences", f"Difference from {baseline}, user by user", note, figure)


def _shares(differences: pd.Series, better_up: bool) -> str:
    up, down = float((differences > 0).mean()), float((differences < 0).mean())
    better, worse = (up, down) if better_up else (down, up)
    return f"better {better:.1%}, worse {worse:.1%}"


def _steps(
    records: Mapping[Run, Record], styles: Mapping[str, Any], metric: str, shown: Callable[[str], str]
) -> Figure | None:
    """The runs' measurements with other numbers of generation steps, as means over training seeds."""
    measured = [
        {"label": run.label, "steps": point["steps"], "valid": point["valid"][metric], "seconds": point["seconds"]}
        for run, record in records.items()
        for point in record["steps_curve"]
    ]
    if not measured:
        return None
    points = pd.DataFrame(measured).groupby(["label", "steps"], sort=False).mean().reset_index()
    columns = {"valid": f"validation {shown(metric)}", "seconds": "seconds to rank the validation split"}
    figure, places = _panels(list(columns.values()), ["steps of generation"] * 2, columns=2)
    for index, (value, (line, column)) in enumerate(zip(columns, places, strict=True)):
        for name, curve in points.groupby("label", sort=False):
            style = styles[str(name)]
            figure.add_scatter(
                x=curve["steps"], y=curve[value], mode="lines+markers", marker=_marker(style, size=8),
                line=_line(style), row=line, col=column, **_named(str(name), index == 0),
            )  # fmt: skip
        figure.update_xaxes(type="log", tickvals=sorted(points["steps"].unique()), row=line, col=column)
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_yaxes(**_log_axis(points["seconds"].tolist()), row=1, col=2)
    note = "The trained models, each with fewer or more steps of its own sampler."
    return Figure("steps", "Steps of generation", note, figure)
