"""Search the strengths of the offline table and write conf/tuned/offline/: `python scripts/tune.py [STREAM_STRATEGY ...]`.

Each search is the command that its file names; held-out training examples decide, seed 100 is in no table.
Run again, it finds its runs finished; a file found before its range was widened names the narrower one.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import yaml

STREAMS = ("split_digits", "split_mnist5k", "split_fashion_mnist", "permuted_mnist5k", "gaussian_digits")
SPACES = {  # strategy -> (what is searched, from, to)
    "ewc": ("strength", 1.0, 1e6),
    "ewc_online": ("strength", 1.0, 1e6),
    "si": ("strength", 0.01, 1e4),
    "mas": ("strength", 0.01, 100),
    "lwf": ("strength", 0.1, 30),
    "der": ("alpha", 0.03, 30),
    "derpp": ("alpha", 0.03, 30),
    "er_ewc": ("parts.ewc.strength", 1.0, 1e6),
}
TASK_FREE = ("der", "derpp")
TUNED = Path(__file__).parents[1] / "conf/tuned/offline"


def search(stream: str, strategy: str, trials: int) -> None:
    name, low, high = SPACES[strategy]
    words = [
        *("-m", "hydra/sweeper=optuna", f"hydra.sweeper.n_trials={trials}", f"scenario=offline/{stream}", f"strategy={strategy}"),
        *("seed=100", "look.part=valid", "scenario.valid_fraction=0.1", f"strategy.{name}=tag(log,interval({low},{high}))"),
        f'tag="tune_${{strategy.{name}}}"',
    ]
    done = subprocess.run([sys.executable, "-m", "cl_bench", *words, "runtime.threads=1"], capture_output=True, text=True)
    best = re.search(r"best of (\d+): ([\d.]+), (.+)", done.stdout)
    if best is None:
        sys.exit(done.stderr)
    value = yaml.safe_load((Path(best[3]) / "config.yaml").read_text())["strategy"]
    for key in name.split("."):
        value = value[key]
    TUNED.mkdir(parents=True, exist_ok=True)
    lost = re.search(r"error: (\d+) of \d+ runs failed", done.stderr)
    (TUNED / f"{stream}_{strategy}.yaml").write_text(
        "# @package _global_\n"
        f"# {name} of {strategy} on {stream}, MLP: mean of class- and task-incremental accuracy {best[2]} on held-out training examples.\n"
        f"# Found {date.today()}, best of {best[1]} trials, of which {lost[1] if lost else 0} diverged; seed 100:\n"
        f"#   python -m cl_bench {shlex.join(words)}\n"
        f"strategy: {{{name.replace('.', ': {')}: {value:.4g}{'}' * name.count('.')}}}\n"
    )
    print(f"{stream} {strategy}: {name} {value:.4g}, {best[2]}", flush=True)


def main() -> None:
    names = [f"{stream}_{s}" for stream in STREAMS for s in SPACES if s in TASK_FREE or not stream.startswith("gaussian")]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="STREAM_STRATEGY", help=f"of {', '.join(names)}; all without one")
    parser.add_argument("--trials", type=int, default=12)
    given = parser.parse_args()
    if given.trials < 1:
        parser.error(f"--trials {given.trials} is not allowed; give 1 or more")
    unknown = set(given.names) - set(names)
    if unknown:
        parser.error(f"{', '.join(unknown)} not known; give some of {', '.join(names)}")
    for name in given.names or names:
        stream = next(s for s in STREAMS if name.startswith(f"{s}_"))
        search(stream, name.removeprefix(f"{stream}_"), given.trials)


if __name__ == "__main__":
    main()
