"""Patching by interpolation: each pair of a kept and a new task beside the grids, and what gradients tell of transfer. Reads files only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cl_bench.core.errors import ConfigError
from cl_bench.interpolation.search import quasiconvex
from cl_bench.reports import patching_tasks, tables
from cl_bench.reports.trend import spearman

GRIDS = (11, 21)
SLACK = 1e-3  # share of a curve's range below which a rise is ripple, as in conf/strategy/paint.yaml
GROUP = ("model", "tag")
PLACES = {"chosen": "search", "grid11": "11-point grid", "grid21": "21-point grid", "accuracy": "accuracy, 11-point grid"}


def read(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(every measurement, every search) of the runs that left them."""
    segments, searches = [], []
    for run in runs.to_dict("records"):
        folder, columns = Path(str(run["folder"])), {key: run[key] for key in (*GROUP, "seed", "folder")}
        if not (folder / "searches.csv").is_file() or not (folder / "searches.csv").stat().st_size:
            continue
        found = pd.read_csv(folder / "searches.csv", keep_default_na=False)
        spent = [row["seconds"] for row in json.loads((folder / "seconds.json").read_text(encoding="utf-8"))]
        searches.append(found.assign(seconds=spent, **columns))
        segments.append(pd.read_csv(folder / "segments.csv").assign(**columns))
    if not searches:
        raise ConfigError(
            "no run here has patched anything (searches.csv); give folders of strategy=paint, such as experiment=paint/offline"
        )
    return pd.concat(segments, ignore_index=True), pd.concat(searches, ignore_index=True)


def pairs(segments: pd.DataFrame, searches: pd.DataFrame) -> pd.DataFrame:
    """One row for each kept and new task that were searched for alone: the search beside the grids, tests, and transfer."""
    lines = []
    measured = {key: part.set_index("coefficient") for key, part in segments.groupby(["folder", "after", "on", "part"])}
    for row in searches.to_dict("records"):
        names = [row["kept"], row["new"]]
        if any("+" in name for name in names) or row["gradient_similarity"] == "":
            continue
        curves = {
            (name, part): measured[row["folder"], row["after"], name, part]
            for name in names
            for part in ("valid", "test")
            if (row["folder"], row["after"], name, part) in measured
        }
        lines.append(_pair(row, names, curves))
    return pd.DataFrame(lines)


def _pair(row: dict[Any, Any], names: Sequence[str], curves: dict[tuple[str, str], pd.DataFrame]) -> dict[str, Any]:
    scales = dict(zip(names, map(float, str(row["scales"]).split()), strict=True))
    valid = [curves[name, "valid"]["loss"] / scales[name] for name in names]
    total = (valid[0] + valid[1]).dropna()  # where both were measured
    accuracy = (curves[names[0], "valid"]["accuracy"] + curves[names[1], "valid"]["accuracy"]).dropna() / 2
    chosen = float(row["coefficient"])
    line = {key: row[key] for key in (*GROUP, "seed", "kept", "new", "search", "normaliser", "coefficient", "value")}
    line |= {key: row[key] for key in ("evaluations", "seconds", "note")}
    line["quasiconvex"] = str(row["quasiconvex"]) == "True"
    line["quasiconvex_everywhere"] = quasiconvex(total.to_dict(), SLACK)
    places = {"chosen": chosen}
    for count in GRIDS:
        grid = [float(a) for k in range(count) for a in total.index if abs(a - k / (count - 1)) < 1e-9]
        if len(grid) == count:
            places[f"grid{count}"] = best = min(grid, key=lambda a: (total[a], a))
            line |= {f"grid{count}": best, f"grid{count}_value": total[best]}
            line[f"gain{count}_percent"] = 100 * (total[best] - row["value"]) / total[best]
            if count == GRIDS[0]:
                places["accuracy"] = line["by_accuracy"] = min(grid, key=lambda a: (-accuracy[a], a))
                line["by_accuracy_value"] = total[places["accuracy"]]
    for place, a in places.items():
        tests = [curves[name, "test"].loc[a] for name in names if (name, "test") in curves and a in curves[name, "test"].index]
        if len(tests) == 2:
            line[f"test_value_{place}"] = sum(test["loss"] / scale for test, scale in zip(tests, scales.values(), strict=True))
            for role, test in zip(("kept", "new"), tests, strict=True):
                line |= {f"test_{role}_loss_{place}": test["loss"], f"test_{role}_accuracy_{place}": test["accuracy"]}
    loss = curves[names[0], "valid"]["loss"]
    similarity, gradient, distance = (float(row[k]) for k in ("gradient_similarity", "gradient_norm", "distance"))
    later = loss[loss.index > 0]
    line |= {"gradient_similarity": similarity, "gradient_norm": gradient, "distance": distance}
    line["transfer_limit"] = similarity * gradient  # of (L(0) - L(a)) / (a distance) as a goes to 0
    line["transfer"] = max(((loss[0.0] - later) / (later.index * distance)).max(), line["transfer_limit"])
    return line | {"transfer_per_gradient": line["transfer"] / gradient if gradient else np.nan}


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """One row a group: pairs won against the grids, by how much, at what cost; correlations of similarity and transfer."""
    lines = []
    for key, group in found.groupby(list(GROUP), sort=False):
        line: dict[str, Any] = {**dict(zip(GROUP, key, strict=True)), "pairs": len(group), "seeds": group["seed"].nunique()}
        for count in GRIDS:
            gain = group[f"gain{count}_percent"] if f"gain{count}_percent" in group else pd.Series(dtype=float)
            line |= {f"below_{count}": int((gain > 0).sum()), f"ties_{count}": int((gain == 0).sum())}
            if f"test_value_grid{count}" in group:
                line[f"test_below_{count}"] = int((group["test_value_chosen"] < group[f"test_value_grid{count}"]).sum())
            line |= {f"median_gain_{count}": gain.median(), f"largest_gain_{count}": gain.max(), f"least_gain_{count}": gain.min()}
        line |= {"evaluations": group["evaluations"].mean(), "seconds": group["seconds"].median()}
        line |= {"quasiconvex": int(group["quasiconvex"].sum()), "quasiconvex_everywhere": int(group["quasiconvex_everywhere"].sum())}
        for name in ("transfer", "transfer_per_gradient"):
            line[f"spearman_{name}"] = spearman(group["gradient_similarity"], group[name])
            line[f"pearson_{name}"] = _pearson(group["gradient_similarity"], group[name])
        within = [spearman(part["gradient_similarity"], part["transfer"]) for _, part in group.groupby(["kept", "seed"])]
        line["spearman_within_kept"] = float(np.nanmean(within)) if not np.isnan(within).all() else np.nan
        line["transfer_is_its_limit"] = int(np.isclose(group["transfer"], group["transfer_limit"], rtol=1e-3, atol=0).sum())
        line["with_transfer"] = int((group["transfer"] > 0).sum())
        lines.append(line)
    return pd.DataFrame(lines)


def tests(found: pd.DataFrame) -> pd.DataFrame:
    """Means over pairs of what the tests say where the search, the grids and the accuracy on the 11-point grid would stop."""
    figures = {f"{role} {what}": f"test_{role}_{what}" for role in ("kept", "new") for what in ("loss", "accuracy")}
    lines = []
    for key, group in found.groupby(list(GROUP), sort=False):
        for place in PLACES:
            if f"test_value_{place}" in group:
                means = {name: f"{group[f'{column}_{place}'].mean():.4f}" for name, column in figures.items()}
                lines.append({**dict(zip(GROUP, key, strict=True)), "coefficient by": PLACES[place], **means, "pairs": len(group)})
    return pd.DataFrame(lines)


def _pearson(x: pd.Series, y: pd.Series) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and min(np.ptp(x), np.ptp(y)) > 0 else np.nan


def write(runs: pd.DataFrame, out: Path) -> list[Path]:
    """Tables and figures; what is short also on the terminal."""
    from cl_bench.reports import patching_plots
    from cl_bench.reports.plots import save

    segments, searches = read(runs)
    written = []
    tasks = patching_tasks.accuracies(runs)
    if not tasks.empty:
        written += _table(tasks, patching_tasks.table(tasks), out, "patching_tasks")
    found = pairs(segments, searches)
    if found.empty:
        print("note: no pair was searched for alone, so there is no table of pairs; run with strategy.pairs=true strategy.survey=21.")
        return written
    short = summary(found)
    found.to_csv(out / "patching_pairs.csv", index=False)
    flat = short.T.reset_index().map(lambda v: f"{v:.4g}" if isinstance(v, float) else str(v))
    flat.columns = ["figure", *(f"group {n}" for n in range(1, flat.shape[1]))]
    written += [out / "patching_pairs.csv", *_table(short, flat, out, "patching_summary")]
    on_tests = tests(found)
    if not on_tests.empty:
        written += _table(on_tests, on_tests, out, "patching_tests")
    return written + save(patching_plots.figures(segments, searches, found), out)


def _table(numbers: pd.DataFrame, shown: pd.DataFrame, out: Path, name: str) -> list[Path]:
    """The numbers as .csv; what is shown as .md, and on the terminal."""
    numbers.to_csv(out / f"{name}.csv", index=False)
    (out / f"{name}.md").write_text(tables.markdown(shown), encoding="utf-8")
    tables.show(shown)
    return [out / f"{name}.csv", out / f"{name}.md"]
