"""The offline study of pretraining and scale, end to end: every run of conf/experiment/scale's twins, then tables and figures.

    python scripts/study.py [--jobs 2] [--outputs outputs] [key=value ...]

Some two hours on 2 CPU cores. What is finished is skipped, what was interrupted goes on: run it again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
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
TASKS = "split_mnist5k/*/*/scale2_{}"  # model, strategy, tag
REPORTS = {  # name -> (tags or folders of runs, options)
    "split_cifar10": ((TASKS.format("scratch_lr*"), TASKS.format("pretrained_lr*")), "--analyses"),
    "scratch_vs_pretrained": (
        tuple(TASKS.format(tag) for tag in ("scratch_lr*", "pretrained_lr*", "stopped_lr*", "pretrained_slow*")),
        "--analyses --by model tag",
    ),
    "split_cifar100_10x10": (("split_digits/*/*/scale5_*",), "--analyses --by model tag"),
    "split_cifar100_2x50": (("split_fashion_mnist/*/*/scale2_*",), "--analyses --by model tag"),
    "shift_cifar100": (("shift_fashion_mnist/*/*/scale2_*",), "--analyses --by model tag"),
    "two_datasets": (("sequence_*/*/*/scale2_*",), "--analyses --by data model tag"),
    "pretraining_steps": ((TASKS.format("pretrained_step[0-9]*"), TASKS.format("pretrained_lr0.03")), "--by model tag"),
    "pretraining_data": ((TASKS.format("pretrained_fraction*"), TASKS.format("pretrained_lr0.03")), "--by model tag"),
    "finetuning_steps": ((TASKS.format("*_steps[0-9]*"),), "--by model tag"),
    "overlap": (
        (TASKS.format("scratch_lr0.03"), TASKS.format("pretrained_lr0.03")),
        "--analyses --by model tag --metrics overlap_within overlap_within_null overlap_within_shuffled overlap_across overlap_across_null",
    ),
    "language": (("text_*/*/*/scale*",), "--analyses --by model tag"),
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
    for name, (patterns, told) in REPORTS.items():
        folders = sorted(str(folder) for pattern in patterns for folder in options.outputs.glob(pattern))
        out = options.outputs / "study" / name
        if folders:
            print(f"\n{name}: {out}", flush=True)
            subprocess.run([sys.executable, "-m", "cl_bench.reports", *folders, *told.split(), "--out", str(out)], check=False)
    if failed:
        print("not all runs ended well:", *failed, sep="\n  ", file=sys.stderr)
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
