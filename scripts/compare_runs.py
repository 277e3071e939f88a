"""How alike finished runs are, two by two: `python scripts/compare_runs.py outputs/split_cifar100 [...] [--out FILE]`.

l2: distance of their final backbones (runtime.save_backbone=true). cka_<layer>: linear CKA of their final features on the same
test images, mean over tests (probe=[...,cka]). One row a pair of rows of the sweep, mean and sample std over pairs of runs of
different seeds: those of one seed began from the same weights. Writes pairs.csv there too.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import fail
from cl_bench.probes.similarity import cka
from cl_bench.reports.collect import find_folders, read_run


def compare(a: Path, b: Path) -> dict[str, float]:
    """What two run folders have in common to compare."""
    found: dict[str, float] = {}
    if all((folder / "backbone.safetensors").is_file() for folder in (a, b)):
        one, two = (load_file(folder / "backbone.safetensors") for folder in (a, b))
        learned = [name for name in one if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
        if one.keys() == two.keys() and all(one[name].shape == two[name].shape for name in learned):
            found["l2"] = float(sum((one[name] - two[name]).double().square().sum() for name in learned) ** 0.5)
    values: dict[str, list[float]] = {}
    for file in sorted((a / "probes").glob("*.last.safetensors")):
        if (b / "probes" / file.name).is_file():
            one, two = load_file(file), load_file(b / "probes" / file.name)
            for layer in sorted((one.keys() & two.keys()) - {"y"}):
                values.setdefault(f"cka_{layer}", []).append(float(cka(one[layer].double(), two[layer].double())))
    return found | {name: sum(v) / len(v) for name, v in values.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, help="default: pairs.csv in the first folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        runs = [read_run(folder) for folder in find_folders(options.folders)[0]]
    except ConfigError as error:
        return fail(str(error))
    rows = []
    for a, b in combinations(runs, 2):
        names = sorted(f"{run['objective']}_{run['strategy']}" for run in (a, b))
        shared = all(a[axis] == b[axis] for axis in ("scenario", "data", "model", "tag")) and a["seed"] != b["seed"]
        found = compare(Path(str(a["folder"])), Path(str(b["folder"]))) if shared else {}
        if found:
            rows.append({"data": a["data"], "one": names[0], "other": names[1], **found})
    if not rows:
        return fail(
            f"{' '.join(map(str, options.folders))} has no two runs of one scenario and different seeds with backbones or features kept; "
            "run them with runtime.save_backbone=true or probe=[knn,cka]"
        )
    table = pd.DataFrame(rows)
    table.to_csv(options.out or options.folders[0] / "pairs.csv", index=False)
    grouped = table.groupby(["data", "one", "other"]).agg(["mean", "std", "count"])
    print(grouped.round(4).to_string())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
