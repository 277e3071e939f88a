"""Run folders made up for reports."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from cl_bench.reports import collect

MATRIX = "after,task0,task1\n-1,0.1,0.1\n0,0.9,\n1,0.5,0.7\n"


def make_run(
    root: Path,
    strategy: str,
    seed: int,
    accuracy: float | None,
    matrix: str = MATRIX,
    reference: dict[str, list[float]] | None = None,
    **name: str,
) -> Path:
    """A finished run; accuracy None gives an undefined value."""
    full = {"scenario": "split", "data": "mnist", "model": "mlp", "objective": "supervised", "tag": "base", **name}
    full |= {"strategy": strategy, "seed": str(seed)}
    folder = root / f"{full['scenario']}_{full['data']}" / full["model"] / strategy / full["tag"] / f"seed{seed}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": full, "reference": reference}))
    (folder / "provenance.json").write_text(json.dumps({"parameters": 89610}))
    value = "" if accuracy is None else accuracy
    rows = ["metric,value", f"class_il_average_accuracy,{value}", "class_il_average_forgetting,0.4"]
    rows += ["task_il_average_accuracy,0.9", "task_il_average_forgetting,"]
    (folder / "summary.csv").write_text("\n".join(rows) + "\n")
    for kind in collect.KINDS:
        (folder / f"accuracy_{kind}.csv").write_text(matrix)
    return folder
