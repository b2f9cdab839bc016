"""The picture of ``evaluate --by``: a metric in groups of rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from recbole_diffusion.storage.files import write_text

_PANEL, _COLOUR = 260, "#0072B2"


def draw(groups: Mapping[str, Mapping[str, Mapping[str, float]]], metric: str, path: Path) -> None:
    """Write an HTML file with a panel of bars for each way to group.

    Args:
        groups: title of a panel -> group -> metric -> mean.
        metric: the metric to show, ``ndcg@10``; if it was not computed, the first one.
        path: the file.
    """
    figure = make_subplots(rows=len(groups), cols=1, subplot_titles=list(groups))
    for row, of_groups in enumerate(groups.values(), start=1):
        names = list(of_groups)
        shown = metric if metric in of_groups[names[0]] else next(iter(of_groups[names[0]]))
        means = [of_groups[name][shown] for name in names]
        texts = [f"{mean:.4f}" for mean in means]
        bars = go.Bar(x=means, y=names, orientation="h", text=texts, marker_color=_COLOUR, showlegend=False)
        figure.add_trace(bars, row=row, col=1)
        figure.update_xaxes(title_text=shown, row=row, col=1)
        figure.update_yaxes(autorange="reversed", row=row, col=1)
    figure.update_layout(height=_PANEL * len(groups) + 80, template="plotly_white")
    write_text(path, figure.to_html(include_plotlyjs=True))
