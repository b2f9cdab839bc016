"""Write the report of a comparison: tables, ``report.html`` with tables and figures, and the figures as PNG files."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import plotly.io
from plotly.offline import get_plotlyjs

from recbole_diffusion.compare import figures, summary, tables
from recbole_diffusion.compare.figures import Figure
from recbole_diffusion.compare.run import Run
from recbole_diffusion.compare.summary import Record
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.storage.files import whole_file

# A file in the folder of the pictures that lists those written by us. Other pictures there may be the user's.
_WRITTEN = ".written"
_PNG = {"width": 1100, "scale": 2}
_STYLE = """\
body { font: 16px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 1100px; margin: 0 auto; padding: 24px; }
h1 { font-size: 28px; } h2 { font-size: 23px; margin-top: 48px; border-bottom: 1px solid #bbb; } h3 { font-size: 18px; }
.scroll { overflow-x: auto; } .plotly-graph-div { min-width: 950px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #555; } th:first-child, td:first-child { text-align: left; }
.note { color: #444; font-size: 14px; max-width: 800px; overflow-wrap: anywhere; }
"""


def write(
    out: Path, runs: Sequence[Run], records: Mapping[Run, Record], baseline: str, metric: str, png: bool = False
) -> None:
    """Write ``results.csv``, ``results.md`` and ``report.html`` from the runs that have a result in ``records``.

    Args:
        out: folder to write into.
        runs: all runs of the comparison.
        records: the results of the finished runs, at least one.
        baseline: label of the model that the others are tested against.
        metric: the tested metric, as results name it: ``ndcg@10``.
        png: write every figure to ``figures/DATASET-NAME.png`` too.

    Raises:
        UserError: ``png`` is set and there is no browser.
    """
    rows = summary.summarise(runs, records, baseline, metric)
    shown = tables.metric_names(runs[0].resolved["metrics"])
    tables.write(out, rows, baseline, metric, shown)
    styles = figures.styles([run.label for run in runs])
    drawn = {}
    for dataset, own in tables.by_dataset(rows).items():
        of_dataset = {run: records[run] for run in runs if run.dataset == dataset and run in records}
        drawn[dataset] = figures.draw(own, of_dataset, styles, baseline, metric, shown)
    with whole_file(out / "report.html") as file:
        file.write(_page(rows, drawn, baseline, metric, shown).encode())
    if png:
        write_png(out / "figures", drawn)


def check_png() -> None:
    """Check that kaleido is installed for PNG files. Called before the runs, which may take hours.

    Raises:
        UserError: kaleido is not installed.
    """
    if find_spec("kaleido") is None:
        raise UserError("--png: needs kaleido: pip install kaleido.")


def write_png(folder: Path, drawn: Mapping[str, Sequence[Figure]]) -> None:
    """Write every figure as ``DATASET-NAME.png``. Remove those that were written here before and are no longer drawn.

    Raises:
        UserError: the browser that kaleido draws with is missing.
    """
    folder.mkdir(exist_ok=True)
    made = {folder / f"{dataset}-{one.name}.png": one.figure for dataset, found in drawn.items() for one in found}
    heights = [figure.layout.height for figure in made.values()]
    try:
        plotly.io.write_images(list(made.values()), list(made), height=heights, **_PNG)
    except Exception as error:  # there are many ways for a browser to be missing or not to start
        raise UserError(f"--png: needs Chrome or Chromium: {' '.join(str(error).split())}") from error
    ours = folder / _WRITTEN
    before = ours.read_text(encoding="utf-8").splitlines() if ours.is_file() else []
    for old in {folder / Path(name).name for name in before} - made.keys():
        old.unlink(missing_ok=True)
    with whole_file(ours) as file:
        file.write("".join(f"{path.name}\n" for path in made).encode())


def _page(
    rows: Sequence[Mapping[str, Any]],
    drawn: Mapping[str, Sequence[Figure]],
    baseline: str,
    metric: str,
    shown: Callable[[str], str],
) -> str:
    """One HTML file that needs no other file: it contains plotly's JavaScript."""
    body = ["<h1>Comparison of recommenders</h1>"]
    for number, (dataset, own) in enumerate(tables.by_dataset(rows).items()):
        body.append(f"<h2>{html.escape(dataset)}</h2>")
        body += [_paragraphs(text) for text in tables.warnings(own)]
        for table in tables.shown_tables(own, baseline, metric, shown):
            body.append(_table(table))
        for figure in drawn[dataset]:
            body.append(f"<h3>{html.escape(figure.title)}</h3>")
            body.append(f'<p class="note">{html.escape(figure.note)}</p>')
            picture = figure.figure.to_html(
                full_html=False,
                include_plotlyjs=False,
                div_id=f"figure-{number}-{figure.name}",
                config={"displayModeBar": False, "responsive": True},
            )
            body.append(f'<div class="scroll">{picture}</div>')
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in tables.protocol(own))
        body.append(f"<h3>Protocol</h3><ul class='note'>{lines}</ul>")
    body.append(f"<h2>How to read it</h2>{_paragraphs(tables.NOTES)}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Comparison of recommenders</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>\n{_STYLE}</style>\n'
        f"<script>{get_plotlyjs()}</script></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _table(table: tables.Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in table.lines]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<h3>{html.escape(table.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _paragraphs(markdown: str) -> str:
    """The notes as HTML: paragraphs, ``**bold**`` and ```code```, the only Markdown in them."""
    text = html.escape(markdown, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text, flags=re.DOTALL)
    return "".join(f'<p class="note">{part}</p>' for part in text.strip().split("\n\n"))
