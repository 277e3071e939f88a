"""The offline study of pretraining and scale, end to end: every run of conf/experiment/scale's twins, then tables and figures.

    python scripts/study.py [--jobs 2] [--outputs outputs] [--report] [key=value ...]

2 h 49 min on 2 CPU cores (LOG.md). What is finished is skipped, what was interrupted goes on: run it again.
Leaves outputs/study/answers.md, the questions with their numbers, and a folder of tables and figures for each preset and family.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path

from cl_bench.core.errors import ConfigError
from cl_bench.reports import collect, scale

SMALL = "model=vit_femto,vit_pico,resnet_gn_w8"
RUNS = (
    "experiment=scale/pretrain",
    "experiment=scale/scratch_vs_pretrained offline=true",  # holds the runs of split_cifar10 and overlap
    "experiment=scale/scratch_vs_pretrained_rates offline=true",
    "experiment=scale/split_cifar100_10x10 offline=true",
    "experiment=scale/split_cifar100_2x50 offline=true",
    "experiment=scale/shift_cifar100 offline=true",
    "experiment=scale/pretraining_steps offline=true",
    "experiment=scale/finetuning_steps offline=true",
    f"experiment=scale/pretrain scenario.fraction=0.5,0.25,0.125,0.0625 {SMALL}",
    "experiment=scale/pretraining_data offline=true",
    "experiment=scale/language offline=true",
    "experiment=scale/language_pretrain",
    "experiment=scale/language_pretrained_offline",
    "experiment=scale/two_datasets offline=true",
)
FAMILIES = ("vit", "resnet_gn", "lm")  # never in one trend over sizes: they differ in more than size
TASKS = "split_mnist5k/{family}_*/*/scale2_"  # then the tag
PLAIN = (TASKS + "scratch_lr*", TASKS + "pretrained_lr*")
OVERLAPS = "overlap_within overlap_within_null overlap_within_shuffled overlap_across"
STEPS = TASKS + "*_steps[0-9]*"
# name -> (folders of its own runs, then of others beside them), options beside --analyses
REPORTS: dict[str, tuple[tuple[str, ...], str]] = {
    "split_cifar10": ((*PLAIN, STEPS), ""),  # rates and steps make the frontier
    "scratch_vs_pretrained": ((TASKS + "stopped_lr*", TASKS + "pretrained_slow*", *PLAIN), ""),
    "split_cifar100_10x10": (("split_digits/{family}_*/*/scale5_*",), ""),
    "split_cifar100_2x50": (("split_fashion_mnist/{family}_*/*/scale2_*",), ""),
    "shift_cifar100": (("shift_fashion_mnist/{family}_*/*/scale2_*",), ""),
    "two_datasets": (("sequence_*/{family}_*/*/scale2_*",), ""),
    "pretraining_steps": ((TASKS + "pretrained_step[0-9]*", *(tag[:-1] + "0.03" for tag in PLAIN)), "--along pretraining_steps"),
    "pretraining_data": ((TASKS + "pretrained_fraction*", *(tag[:-1] + "0.03" for tag in PLAIN)), "--along pretraining_data"),
    "finetuning_steps": ((STEPS, *(tag[:-1] + "0.03" for tag in PLAIN)), "--along finetuning_steps"),
    "overlap": (tuple(tag[:-1] + "0.03" for tag in PLAIN), f"--metrics task_il_average_forgetting {OVERLAPS}"),
    "language": (("text_*/{family}_*/*/scale*",), ""),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each on one thread")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--report", action="store_true", help="train nothing: tables, figures and answers from the runs that are there")
    parser.add_argument("settings", nargs="*", help="for every run, such as seed=0")
    options = parser.parse_args()
    more = [f"runtime.outputs={options.outputs}", "runtime.threads=1", *options.settings]
    more += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"] * (options.jobs > 1)
    lines = () if options.report else RUNS
    failed = [line for line in lines if subprocess.run([sys.executable, "-m", "cl_bench", *line.split(), *more]).returncode]
    for name, family in product(REPORTS, FAMILIES):
        if not report(options.outputs, name, family):
            failed.append(f"report {name} of {family}")
    try:
        scale.write(collect.read_runs(sorted(options.outputs.glob("*/*/*/scale*"))), options.outputs / "study")
    except ConfigError as error:
        failed.append(f"answers: {error}")
    if failed:
        print("not all went well:", *failed, sep="\n  ", file=sys.stderr)
    return len(failed) > 0


def report(outputs: Path, name: str, family: str) -> bool:
    """Tables and figures of one preset; nothing where it has no run of its own of this family yet."""
    patterns, told = REPORTS[name]
    found = {pattern: [str(folder) for folder in outputs.glob(pattern.format(family=family))] for pattern in patterns}
    if not any(next(Path(folder).rglob("summary.csv"), None) for folder in found[patterns[0]]):
        return True
    folders = sorted({folder for several in found.values() for folder in several})
    out = outputs / "study" / f"{name}_{family}"
    print(f"\n{name}: {out}", flush=True)
    command = [sys.executable, "-m", "cl_bench.reports", *folders, "--analyses", *told.split(), "--out", str(out)]
    return subprocess.run(command).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
