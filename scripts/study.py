"""The offline study of pretraining and scale, end to end: every run of conf/experiment/scale's twins, then tables and figures.

    python scripts/study.py [--jobs 2] [--outputs outputs] [key=value ...]

Some two hours on 2 CPU cores. What is finished is skipped, what was interrupted goes on: run it again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path

SMALL = "model=vit_femto,vit_pico,resnet_gn_w8"
RUNS = (
    "experiment=scale/pretrain",
    "experiment=scale/scratch_vs_pretrained offline=true",  # holds the runs of split_cifar10 and overlap
    "experiment=scale/scratch_vs_pretrained_rates offline=true",
    "experiment=scale/split_cifar100_10x10 offline=true",
    "experiment=scale/split_cifar100_2x50 offline=true",
    "experiment=scale/shift_cifar100 offline=true",
    "experiment=scale/two_datasets offline=true",
    "experiment=scale/pretraining_steps offline=true",
    "experiment=scale/finetuning_steps offline=true",
    f"experiment=scale/pretrain scenario.fraction=0.5,0.25,0.125,0.0625 {SMALL}",
    "experiment=scale/pretraining_data offline=true",
    "experiment=scale/language offline=true",
)
FAMILIES = ("vit", "resnet_gn", "lm")  # never in one trend over sizes: they differ in more than size
TASKS = "split_mnist5k/{family}_*/*/scale2_"  # then the tag
BY_TAG = "--analyses --by model tag"
REPORTS: dict[str, tuple[tuple[str, ...], str]] = {  # name -> folders of runs, options
    "split_cifar10": ((TASKS + "scratch_lr*", TASKS + "pretrained_lr*"), "--analyses"),  # rates make the frontier
    "scratch_vs_pretrained": (
        tuple(TASKS + tag for tag in ("scratch_lr*", "pretrained_lr*", "stopped_lr*", "pretrained_slow*")),
        BY_TAG,
    ),
    "split_cifar100_10x10": (("split_digits/{family}_*/*/scale5_*",), BY_TAG),
    "split_cifar100_2x50": (("split_fashion_mnist/{family}_*/*/scale2_*",), BY_TAG),
    "shift_cifar100": (("shift_fashion_mnist/{family}_*/*/scale2_*",), BY_TAG),
    "two_datasets": (("sequence_*/{family}_*/*/scale2_*",), "--by data model tag"),
    "pretraining_steps": ((TASKS + "pretrained_step[0-9]*", TASKS + "pretrained_lr0.03", TASKS + "scratch_lr0.03"), BY_TAG),
    "pretraining_data": ((TASKS + "pretrained_fraction*", TASKS + "pretrained_lr0.03"), BY_TAG),
    "finetuning_steps": ((TASKS + "*_steps[0-9]*",), BY_TAG),
    "overlap": (
        (TASKS + "scratch_lr0.03", TASKS + "pretrained_lr0.03"),
        BY_TAG + " --metrics task_il_average_forgetting overlap_within overlap_within_null overlap_within_shuffled overlap_across",
    ),
    "language": (("text_*/{family}_*/*/scale*",), BY_TAG),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each on one thread")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("settings", nargs="*", help="for every run, such as seed=0")
    options = parser.parse_args()
    more = [f"runtime.outputs={options.outputs}", "runtime.threads=1", *options.settings]
    more += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"] * (options.jobs > 1)
    failed = [line for line in RUNS if subprocess.run([sys.executable, "-m", "cl_bench", *line.split(), *more]).returncode]
    for name, family in product(REPORTS, FAMILIES):
        patterns, told = REPORTS[name]
        folders = sorted({str(folder) for pattern in patterns for folder in options.outputs.glob(pattern.format(family=family))})
        out = options.outputs / "study" / f"{name}_{family}"
        if folders:
            print(f"\n{name}: {out}", flush=True)
            subprocess.run([sys.executable, "-m", "cl_bench.reports", *folders, *told.split(), "--out", str(out)], check=False)
    if failed:
        print("not all runs ended well:", *failed, sep="\n  ", file=sys.stderr)
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
