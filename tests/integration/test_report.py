"""The report of a comparison: what its figures show, and how a browser renders it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import wilcoxon

from recbole_diffusion.compare import figures, report, summary, tables
from recbole_diffusion.compare.run import Run
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.storage.files import whole_file

MODELS = ["Pop", "WindowSASRec", "DreamRec", "DreamRec:paper", "DiffDiv", "DiffuRec", "ADIGRec", "BPR", "BERT4Rec"]
METRICS = ["NDCG", "ILD", "CategoryCoverage", "EmbeddingILD", "Novelty", "ItemCoverage", "GiniIndex"]
USERS = 200
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
# Put at the end of a page: pairs of texts of a figure that overlap, and texts that leave it.
LOOK = """
<script>window.addEventListener("load", () => setTimeout(() => {
  const wrong = [], shown = [];
  for (const figure of document.querySelectorAll(".plotly-graph-div")) {
    const outer = figure.getBoundingClientRect();
    const texts = [...figure.querySelectorAll("svg text")].filter(t => t.textContent.trim());
    shown.push([figure.id, texts.map(t => t.textContent)]);
    const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]).filter(([_, b]) => b.width > 0);
    boxes.forEach(([a, p], i) => {
      if (p.left < outer.left || p.right > outer.right || p.top < outer.top || p.bottom > outer.bottom)
        wrong.push([figure.id, a, "outside"]);
      for (const [b, q] of boxes.slice(i + 1))
        if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1)
          wrong.push([figure.id, a, b]);
    });
  }
  const found = document.createElement("pre");
  found.id = "found";
  found.textContent = JSON.stringify({wrong, shown, wide: document.body.scrollWidth > window.innerWidth});
  document.body.replaceChildren(found);
}, 1500));</script>
"""


def comparison(folder: Path, models: list[str], seeds: int = 3, constant: bool = False) -> dict[Run, dict[str, Any]]:
    """Finished runs with made-up numbers. ``constant``: every user's metric is 0, as for a model that never hits."""
    records = {}
    for seed in range(seeds):
        for place, name in enumerate(models):
            model, _, preset = name.partition(":")
            rng = np.random.default_rng([place, seed])
            diffusion = model not in ("Pop", "WindowSASRec", "BPR", "BERT4Rec")
            curve = [1, 2, 4, 8] if diffusion else []
            resolved = {"metrics": METRICS, "valid_metric": "NDCG@10"}
            run = Run(
                "ml-100k", model, preset or "default", seed, [0] if diffusion else [], curve, {}, resolved, "", "0f",
                "cpu", 1, str(folder / "runs" / name.replace(":", "-")),
            )  # fmt: skip
            values = rng.choice([0, 0, 0, 0.3, 0.5, 1], size=(1, USERS)) * (not constant)
            Path(run.folder).mkdir(parents=True, exist_ok=True)
            with whole_file(run.file(".npz")) as file:
                np.savez(file, users=np.array([f"u{u:04}" for u in range(USERS)]), **{"ndcg@10": values})
            epochs = range(1, 2 if model == "Pop" else 40, 2)
            records[run] = {
                "tests": [{f"{m.lower()}@10": rng.uniform(0.3, 0.5) for m in METRICS} | {"ndcg@10": values.mean()}],
                "train_seconds": 10 ** rng.uniform(-1, 3), "rank_seconds": [rng.uniform(0.01, 3)], "rows": USERS,
                "parameters": 1000, "peak_memory_gb": 1.0, "epochs": 40,
                "settings": {"eval_args": {"mode": {"valid": "full", "test": "full"}}, "candidate_seed": 5},
                "split_sha256": "1e", "data_sha256": "0f",
                "users": USERS, "eval_seeds": run.eval_seeds, "seconds": 1.0,
                "history": [
                    {"epoch": e, "train_seconds": rng.uniform(1, 2), "valid": {"ndcg@10": 1 - 0.9**e}} for e in epochs
                ],
                "steps_curve": [
                    {"steps": s, "valid": {"ndcg@10": rng.uniform(0.03, 0.06)}, "seconds": 0.5 + s / 10} for s in curve
                ],
            }  # fmt: skip
    return records


def drawn(
    records: Mapping[Run, dict[str, Any]], baseline: str = "Pop", metric: str = "ndcg@10"
) -> dict[str, figures.Figure]:
    rows = summary.summarise(list(records), records, baseline, metric)
    styles = figures.styles([run.label for run in records])
    made = figures.draw(rows, records, styles, baseline, metric, tables.metric_names(METRICS))
    return {figure.name: figure for figure in made}


def test_rows_are_computed_from_the_runs(tmp_path: Path) -> None:
    records = comparison(tmp_path, MODELS)
    rows = {summary.label(row): row for row in summary.summarise(list(records), records, "Pop", "ndcg@10")}

    def of_users(model: str) -> np.ndarray:
        files = [np.load(run.file(".npz"))["ndcg@10"] for run in records if run.label == model]
        return np.concatenate(files).mean(axis=0)

    models = [model for model in MODELS if model != "Pop"]
    p_values = []
    for model in models:
        differences = (of_users(model) - of_users("Pop")).round(9)  # rounding errors are no differences
        row = rows[model]
        assert row["difference"] == pytest.approx(differences.mean())
        assert row["difference_low"] < row["difference"] < row["difference_high"]
        assert row["p"] == pytest.approx(wilcoxon(differences).pvalue)
        p_values.append(row["p"])
    # Holm: the k-th smallest of m times m - k + 1, never below the one before.
    order, largest = np.argsort(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(models) - place)))
        assert rows[models[index]]["p_holm"] == pytest.approx(largest)
    for model, row in rows.items():
        own = [record for run, record in records.items() if run.label == model]
        seconds = [np.mean(record["rank_seconds"]) / USERS * 1000 for record in own]
        assert row["seconds_per_1000_users"] == pytest.approx(np.mean(seconds))
        assert row["train_seconds"] == pytest.approx(np.mean([record["train_seconds"] for record in own]))


# ---- Pop as a reference


def with_pop(records: dict[Run, dict[str, Any]], seed: int = 9) -> dict[Run, dict[str, Any]]:
    """The runs with Pop's values added, as runs record them now. For Pop's own runs these are its own values."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0, 0, 0, 0.3, 0.5], size=(1, USERS))
    figures_of_pop = {f"{name.lower()}@10": 0.1 + place / 100 for place, name in enumerate(METRICS)}
    figures_of_pop["ndcg@10"] = float(values.mean())
    for run, record in records.items():
        if run.model == "Pop":
            record["tests"] = [figures_of_pop]
            add_values(run, **{"ndcg@10": values})
        else:
            record["pop_test"] = dict(figures_of_pop)
            add_values(run, **{"pop_ndcg@10": values})
    return records


def add_values(run: Run, **values: np.ndarray) -> None:
    with np.load(run.file(".npz")) as file:
        known = dict(file)
    np.savez(run.file(".npz"), **{**known, **values})


def rows_of(records: Mapping[Run, dict[str, Any]], metric: str = "ndcg@10") -> dict[str, dict[str, Any]]:
    rows = summary.summarise(list(records), records, "WindowSASRec", metric)
    assert len({summary.label(row) for row in rows}) == len(rows)
    return {summary.label(row): row for row in rows}


def test_pop_has_one_row_whether_it_is_a_model_or_not(tmp_path: Path) -> None:
    beside = rows_of(with_pop(comparison(tmp_path / "beside", ["WindowSASRec", "DiffDiv"])))
    own = rows_of(with_pop(comparison(tmp_path / "own", ["WindowSASRec", "DiffDiv", "Pop"])))
    assert list(beside) == ["WindowSASRec", "DiffDiv", "Pop:reference"]
    assert list(own) == ["WindowSASRec", "DiffDiv", "Pop"]
    for name in METRICS:
        key = f"test_{name.lower()}@10_mean"
        assert beside["Pop:reference"][key] == pytest.approx(own["Pop"][key]), name
    for model in ("WindowSASRec", "DiffDiv"):
        for key in ("pop_difference", "pop_difference_low", "pop_difference_high", "above_pop", "pop_differs"):
            assert beside[model][key] == own[model][key]
    assert np.isnan(own["Pop"]["pop_difference"]) and own["Pop"]["above_pop"] == ""
    without = rows_of(comparison(tmp_path / "old", ["WindowSASRec", "DiffDiv"]))
    assert list(without) == ["WindowSASRec", "DiffDiv"]
    assert {row["above_pop"] for row in without.values()} == {""} and np.isnan(without["DiffDiv"]["pop_difference"])


def test_how_much_a_model_is_above_pop_is_of_its_users(tmp_path: Path) -> None:
    records = with_pop(comparison(tmp_path, ["WindowSASRec", "DiffDiv"]))
    for run in records:
        if run.model == "DiffDiv":
            values = np.load(run.file(".npz"))["pop_ndcg@10"].copy()
            values[0, : 4 + run.seed] += 0.1  # on average over seeds 5 of 200 users gain
            add_values(run, **{"ndcg@10": values})
    row = rows_of(records)["DiffDiv"]
    gains = np.zeros(USERS)
    gains[:4], gains[4], gains[5] = 0.1, 0.1 * 2 / 3, 0.1 / 3
    half = 1.96 * gains.std(ddof=1) / USERS**0.5
    found = [row[f"pop_difference{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx([gains.mean(), gains.mean() - half, gains.mean() + half])
    assert row["above_pop"] == "yes"
    for run in records:
        if run.model == "DiffDiv":
            add_values(run, **{"ndcg@10": np.load(run.file(".npz"))["pop_ndcg@10"]})
    assert rows_of(records)["DiffDiv"]["above_pop"] == "no"


def test_a_model_that_is_not_above_pop_is_marked_wherever_its_diversity_is_shown(tmp_path: Path) -> None:
    records = with_pop(comparison(tmp_path, ["WindowSASRec", "DiffDiv"]))
    for run in records:
        better = 1.0 if run.model == "WindowSASRec" else 0.0
        add_values(run, **{"ndcg@10": np.load(run.file(".npz"))["pop_ndcg@10"] + better})
    report.write(tmp_path, list(records), records, "WindowSASRec", "ndcg@10")
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    marked = [line.split(" | ")[0] for line in lines if "not above Pop" in line]
    assert marked == ["| DiffDiv", "| DiffDiv"]  # in the table of metrics and in that of diversity
    accuracy, lists = (line for line in lines if "difference from Pop" in line)
    assert "ILD@10" not in accuracy and all(f"{name}@10" in lists for name in METRICS)
    reference = [line for line in lines if line.startswith("| Pop | reference")]
    assert len(reference) == 2 and reference[0].startswith("| Pop | reference | – | 0.")
    assert "| reference" not in text.partition("compared with the baseline")[2]  # it has no test and no cost
    assert "Pop:reference" not in text
    table = pd.read_csv(tmp_path / "results.csv").set_index("model")
    assert table.above_pop.fillna("").to_dict() == {"WindowSASRec": "yes", "DiffDiv": "no", "Pop": ""}
    assert table.runs.to_dict() == {"WindowSASRec": 3, "DiffDiv": 3, "Pop": 0}
    assert table.preset["Pop"] == "reference" and np.isnan(table.train_seconds["Pop"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8").partition("</script>")[2]
    assert page.count(", not above Pop</td>") == 2 and page.count("<td>Pop</td>") == 2
    assert "Hollow: not above Pop, so its diversity is no merit (DiffDiv)." in page
    made = drawn(records, "WindowSASRec")
    symbols = {trace.name: trace.marker.symbol for trace in made["diversity"].figure.data}
    assert symbols == {"WindowSASRec": "circle", "DiffDiv": "square-open"}
    accuracy_of_pop = records[next(iter(records))]["pop_test"]["ndcg@10"]
    assert {shape.x0 for shape in made["diversity"].figure.layout.shapes} == {accuracy_of_pop}
    assert {shape.y0 for shape in made["cost"].figure.layout.shapes} == {accuracy_of_pop}


def test_runs_of_earlier_versions_are_compared_with_pops_own_runs(tmp_path: Path) -> None:
    records = comparison(tmp_path, ["WindowSASRec", "Pop"])
    gains = [np.load(run.file(".npz"))["ndcg@10"][0] * (1 if run.model == "WindowSASRec" else -1) for run in records]
    row = rows_of(records)["WindowSASRec"]
    assert row["pop_difference"] == pytest.approx(np.sum(gains, axis=0).mean() / 3)
    assert row["above_pop"] == ("yes" if row["pop_difference_low"] > 0 else "no")
    for run in records:
        run.resolved["mmr_weight"] = 0.5
    assert rows_of(records)["WindowSASRec"]["above_pop"] == ""  # re-ranked lists of Pop are not a reference


def test_accuracy_is_read_by_a_metric_of_accuracy(tmp_path: Path) -> None:
    records = with_pop(comparison(tmp_path, ["WindowSASRec", "DiffDiv"], seeds=1))
    for run in records:
        add_values(run, **{"novelty@10": np.ones((1, USERS))})
    rows = rows_of(records, "novelty@10")
    assert rows["DiffDiv"]["tested_metric"] == "novelty@10" and rows["DiffDiv"]["accuracy_metric"] == "ndcg@10"
    assert rows["DiffDiv"]["pop_difference"] == rows_of(records)["DiffDiv"]["pop_difference"]
    for record in records.values():
        record["tests"] = [{"novelty@10": 1.0}]
        record["pop_test"], record["steps_curve"] = {"novelty@10": 1.0}, []
    assert rows_of(records, "novelty@10")["DiffDiv"]["above_pop"] == ""
    report.write(tmp_path, list(records), records, "WindowSASRec", "novelty@10")
    assert "difference from Pop" not in (tmp_path / "results.md").read_text(encoding="utf-8").partition("## ")[2]


def test_the_seed_of_candidates_is_told_where_they_are_sampled(tmp_path: Path) -> None:
    records = comparison(tmp_path, ["BPR", "Pop"], seeds=1)

    def said() -> bool:
        report.write(tmp_path, list(records), records, "Pop", "ndcg@10")
        return "- seed of the sampled candidates: 5\n" in (tmp_path / "results.md").read_text(encoding="utf-8")

    assert not said()
    for record in records.values():
        record["settings"]["eval_args"]["mode"]["test"] = "pop100"
    assert said()


@pytest.mark.parametrize("mode", ["full", "uni100"])
@pytest.mark.parametrize("models", [["WindowSASRec", "DiffDiv"], ["DiffDiv", "Pop"]])
def test_figures_of_pop_that_differ_in_one_split_are_said(tmp_path: Path, models: list[str], mode: str) -> None:
    records = with_pop(comparison(tmp_path, models, seeds=2))
    for record in records.values():
        record["settings"]["eval_args"]["mode"]["test"] = mode
    first = next(run for run in records if run.model == "DiffDiv")

    def said() -> bool:
        report.write(tmp_path, list(records), records, models[0], "ndcg@10")
        both = [(tmp_path / name).read_text(encoding="utf-8") for name in ("results.md", "report.html")]
        found = {"Pop's figures differ between runs of one split" in text for text in both}
        assert len(found) == 1
        return found.pop()

    records[first]["pop_test"]["ndcg@10"] += 1e-15  # users were added up in another order
    assert not said()
    records[first]["pop_test"]["ndcg@10"] += 1e-3
    assert said()
    records[first]["split_sha256"] = "another"
    assert not said()


def test_figures_show_the_numbers_of_the_runs(tmp_path: Path) -> None:
    records = comparison(tmp_path, MODELS)
    made = drawn(records)
    assert list(made) == ["diversity", "cost", "curves", "differences", "steps"]
    rows = {summary.label(row): row for row in summary.summarise(list(records), records, "Pop", "ndcg@10")}
    diversity = made["diversity"].figure
    assert len(diversity.data) == 6 * len(MODELS)
    assert [trace.name for trace in diversity.data if trace.showlegend] == MODELS
    for trace in diversity.data[: len(MODELS)]:
        row = rows[trace.name]
        assert (trace.x[0], trace.y[0]) == (row["test_ndcg@10_mean"], row["test_ild@10_mean"])
        assert trace.error_x.array[0] == row["test_ndcg@10_std"] > 0
        assert trace.error_y.array[0] == row["test_ild@10_std"] > 0
    looks = {(trace.marker.color, trace.marker.symbol.removesuffix("-open")) for trace in diversity.data}
    assert len(looks) == len({symbol for _, symbol in looks} | {"9th"}) == len(MODELS)  # 8 symbols, 9 looks

    cost = made["cost"].figure
    assert [trace.x[0] for trace in cost.data] == [
        row[name] for name in ("train_seconds", "seconds_per_1000_users") for row in rows.values()
    ]

    curves = made["curves"].figure
    assert {trace.name for trace in curves.data} == set(MODELS) - {"Pop"}
    assert len(curves.data) == 2 * 3 * (len(MODELS) - 1)
    by_epoch, by_seconds = curves.data[:2]
    history = next(record["history"] for run, record in records.items() if run.label == by_epoch.name)
    assert list(by_epoch.x) == [entry["epoch"] + 1 for entry in history]
    assert list(by_seconds.x) == pytest.approx(list(np.cumsum([2 * entry["train_seconds"] for entry in history])))
    assert list(by_seconds.y) == [entry["valid"]["ndcg@10"] for entry in history]

    steps = made["steps"].figure
    curve = next(trace for trace in steps.data if trace.name == "DiffDiv")
    of_seeds = [record["steps_curve"] for run, record in records.items() if run.label == "DiffDiv"]
    scores = [[point["valid"]["ndcg@10"] for point in of_seed] for of_seed in of_seeds]
    assert list(curve.x) == [1, 2, 4, 8] and list(curve.y) == pytest.approx(list(np.mean(scores, axis=0)))
    seconds = [trace for trace in steps.data if trace.name == "DiffDiv"][1]
    assert list(seconds.y) == pytest.approx([0.6, 0.7, 0.9, 1.3])


def test_differences_of_users_are_counted(tmp_path: Path) -> None:
    records = comparison(tmp_path, ["Pop", "DiffDiv"], seeds=1)
    figure = drawn(records)["differences"].figure
    pop, diffdiv = (np.load(run.file(".npz"))["ndcg@10"][0] for run in records)
    (bars,) = figure.data
    assert sum(bars.y) == USERS and bars.x[10] == 0
    assert bars.y[10] == (diffdiv == pop).sum()
    assert sum(bars.y[11:]) == (diffdiv > pop).sum() and sum(bars.y[:10]) == (diffdiv < pop).sum()
    better, worse = (diffdiv > pop).mean(), (diffdiv < pop).mean()
    texts = [note.text for note in figure.layout.annotations]
    assert texts == [f"<b>DiffDiv</b> better {better:.1%}, worse {worse:.1%}"]
    assert bars.marker.color[20] == "#0072B2" and bars.marker.color[0] == "#D55E00"


def test_less_is_better_where_it_is(tmp_path: Path) -> None:
    records = comparison(tmp_path, ["Pop", "DiffDiv"], seeds=1)
    for run, record in records.items():
        values = dict(np.load(run.file(".npz")))
        np.savez(run.file(".npz"), users=values["users"], **{"averagepopularity@10": values["ndcg@10"]})
        record["tests"][0]["averagepopularity@10"] = record["tests"][0].pop("ndcg@10")
        record["steps_curve"] = []
    figure = drawn(records, metric="averagepopularity@10")["differences"].figure
    assert figure.data[0].marker.color[20] == "#D55E00" and figure.data[0].marker.color[0] == "#0072B2"
    pop, diffdiv = (np.load(run.file(".npz"))["averagepopularity@10"][0] for run in records)
    assert f"better {(diffdiv < pop).mean():.1%}" in figure.layout.annotations[0].text


def test_rounding_makes_no_difference_of_users(tmp_path: Path) -> None:
    """The means of the same three values per user, in another order of seeds, differ in the last bit."""
    records = comparison(tmp_path, ["Pop", "DiffDiv"])
    values = np.random.default_rng(0).uniform(size=(3, USERS))
    for run in records:
        of_seed = values[(run.seed + (run.model == "Pop")) % 3][None]
        np.savez(run.file(".npz"), users=np.array([f"u{u:04}" for u in range(USERS)]), **{"ndcg@10": of_seed})
    means = [np.mean([values[(s + shift) % 3] for s in range(3)], axis=0) for shift in (0, 1)]
    assert not np.array_equal(*means)
    figure = drawn(records)["differences"].figure
    assert figure.data[0].y[10] == USERS and "better 0.0%, worse 0.0%" in figure.layout.annotations[0].text


def test_models_without_a_common_user_are_left_out(tmp_path: Path) -> None:
    records = comparison(tmp_path, ["Pop", "DiffDiv", "BPR"], seeds=1)
    (other,) = (run for run in records if run.label == "BPR")
    np.savez(other.file(".npz"), users=np.array(["v1", "v2"]), **{"ndcg@10": np.ones((1, 2))})
    figure = drawn(records)["differences"].figure
    assert [trace.name for trace in figure.data] == ["DiffDiv"]


def test_what_has_no_numbers_has_no_figure(tmp_path: Path) -> None:
    records = comparison(tmp_path / "one", ["Pop"])
    assert list(drawn(records)) == ["diversity", "cost"]
    assert "differences" not in drawn(comparison(tmp_path / "two", MODELS[1:]), baseline="Pop")
    for record in records.values():
        record["tests"] = [{"ndcg@10": 0.0}]
    assert list(drawn(records)) == ["cost"]
    equal = drawn(comparison(tmp_path / "three", ["Pop", "DiffDiv"], constant=True))["differences"].figure
    assert equal.data[0].y[10] == USERS == sum(equal.data[0].y)


def test_the_page_is_one_file_of_its_own(tmp_path: Path) -> None:
    records = comparison(tmp_path, ["Pop", "DiffDiv"])
    report.write(tmp_path, list(records), records, "Pop", "ndcg@10")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    inside = page.partition("</script>")[2]  # what follows plotly's own code
    assert 'src="http' not in inside and "<link" not in page
    row = summary.summarise(list(records), records, "Pop", "ndcg@10")[1]
    assert f"<td>{row['test_ndcg@10_mean']:.4f} ± {row['test_ndcg@10_std']:.4f}</td>" in page
    assert "data set, SHA-256: 0f" in page and "<b>Spread by generation</b>" in page
    assert not (tmp_path / "figures").exists()


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [1200, 700])
def test_a_browser_without_network_shows_every_label_apart(tmp_path: Path, width: int) -> None:
    records = comparison(tmp_path, MODELS)
    report.write(tmp_path, list(records), records, "Pop", "ndcg@10")
    page = tmp_path / "report.html"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", LOOK + "</body>"), encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--window-size={width},3000", "--virtual-time-budget=20000", f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    assert '<pre id="found">' in dom, dom[-500:]
    text = dom.partition('<pre id="found">')[2].partition("</pre>")[0]
    found = json.loads(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert found["wrong"] == [] and not found["wide"]
    shown = dict(found["shown"])
    assert list(shown) == [f"figure-0-{name}" for name in ("diversity", "cost", "curves", "differences", "steps")]
    for name, labels in {
        "diversity": ["ILD@10 (0 to 1)", "Novelty@10 (bits)", "test NDCG@10", *MODELS],
        "cost": ["seconds to train and validate", "seconds to rank 1,000 users", "test NDCG@10", *MODELS],
        "curves": ["epoch", "seconds of training", "validation NDCG@10", *MODELS[1:]],
        "differences": ["difference in NDCG@10"],
        "steps": ["steps of generation", "seconds to rank the validation split", "DiffDiv"],
    }.items():
        assert set(labels) <= set(shown[f"figure-0-{name}"]), name


@pytest.mark.slow
@needs_browser
def test_figures_become_pictures(tmp_path: Path) -> None:
    records = comparison(tmp_path, MODELS)
    report.write(tmp_path, list(records), records, "Pop", "ndcg@10", png=True)
    files = sorted(path.name for path in (tmp_path / "figures").glob("*.png"))
    assert files == [f"ml-100k-{name}.png" for name in ("cost", "curves", "differences", "diversity", "steps")]
    for file in files:
        with Image.open(tmp_path / "figures" / file) as picture:
            assert picture.width == 2200 and len(picture.convert("RGB").getcolors(1 << 24)) > 50, file


def test_only_pictures_that_were_written_here_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.io.write_images", lambda made, paths, **_: [path.write_text("new") for path in paths])
    folder = tmp_path / "figures"
    folder.mkdir()
    mine = {"holiday.png": "mine", "ml-100k-steps.png": "mine", "ml-1m-cost.png": "mine"}
    for name, text in mine.items():
        (folder / name).write_text(text)
    for models, names in (  # without DiffDiv there are no steps; Pop, of one epoch, has no curves
        (["Pop", "BPR"], ("cost", "curves", "differences", "diversity")),
        (["Pop"], ("cost", "diversity")),
        (["Pop", "BPR"], ("cost", "curves", "differences", "diversity")),
    ):
        records = comparison(tmp_path, models)
        report.write(tmp_path, list(records), records, "Pop", "ndcg@10", png=True)
        found = {path.name: path.read_text() for path in folder.glob("*.png")}
        assert found == {**mine, **{f"ml-100k-{name}.png": "new" for name in names}}
    assert [path.name for path in folder.iterdir() if path.suffix != ".png"] == [".written"]


@pytest.mark.parametrize("fact", ["threads", "device", "cpu", "versions"])
def test_runs_of_different_machines_are_said_to_be(tmp_path: Path, fact: str) -> None:
    records = comparison(tmp_path, ["Pop", "DiffDiv"], seeds=2)

    def shown() -> tuple[str, str]:
        report.write(tmp_path, list(records), records, "Pop", "ndcg@10")
        return (tmp_path / "results.md").read_text(encoding="utf-8"), (tmp_path / "report.html").read_text("utf-8")

    for record in records.values():
        record[fact] = "one"
    assert not any("Not all runs are of one machine" in text for text in shown())
    list(records.values())[-1][fact] = "two"
    for text in shown():
        assert "Not all runs are of one machine" in text and "one (Pop); one | two (DiffDiv)" in text
    for run, record in records.items():
        record[fact] = f"machine {run.seed}"  # the same for all models, but not for their runs
    assert all("Not all runs are of one machine" in text and "machine 0 | machine 1" in text for text in shown())


def test_pictures_without_a_browser_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_browser(*_: Any, **__: Any) -> None:
        raise RuntimeError("Kaleido requires Google\nChrome to be installed.")

    monkeypatch.setattr("plotly.io.write_images", no_browser)
    records = comparison(tmp_path, ["Pop"])
    with pytest.raises(UserError, match="--png: needs Chrome or Chromium: Kaleido requires Google Chrome"):
        report.write(tmp_path, list(records), records, "Pop", "ndcg@10", png=True)
    assert (tmp_path / "report.html").is_file()
