"""What a run started from and how long it learned, as columns: from its config, and that of the run it started from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ALONG = ("pretraining_steps", "pretraining_data", "finetuning_steps")  # axes of the scale study beside the size
STARTS = ("scratch", "pretrained", "stopped", "slowed")  # the last two: pretrained, handicapped as handicapped.py says


def described(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with columns family, start, rate, slow and those of ALONG; undefined where a config does not tell."""
    return runs.assign(**pd.DataFrame([_described(run) for _, run in runs.iterrows()], index=runs.index))


def _described(run: pd.Series) -> dict[str, Any]:
    config = run["config"]
    steps, share = pretraining(config, Path(run["folder"]))
    family = re.match(r"[a-z]+(_gn)?", run["model"])
    learned = config.get("train", {}).get("steps") or math.nan
    along = dict(zip(ALONG, (steps, share, learned), strict=True))
    told = {"rate": config.get("lr", math.nan), "slow": config.get("slow", 1.0)}
    return {"family": family[0] if family else run["model"], "start": start(config), **told, **along}


def start(config: Mapping[str, Any]) -> str:
    """One of STARTS."""
    if config.get("model", {}).get("init", "scratch") == "scratch":
        return "scratch"
    if (config.get("match") or {}).get("run"):
        return "stopped"
    return "pretrained" if config.get("slow", 1.0) == 1 else "slowed"


def pretraining(config: Mapping[str, Any], folder: Path) -> tuple[float, float]:
    """(steps, share of the data) behind the first weights: 0 from scratch, undefined for a file that no run here has made."""
    init = str(config.get("model", {}).get("init", "scratch"))
    if init == "scratch":
        return 0.0, 0.0
    file, outputs = Path(init), Path(config.get("runtime", {}).get("outputs", "outputs"))
    if file.is_relative_to(outputs):
        file = folder.parents[4] / file.relative_to(outputs)  # outputs/ may have been moved since
    made = file.parent / "config.yaml"
    if not made.is_file():
        return math.nan, math.nan
    told = yaml.safe_load(made.read_text(encoding="utf-8"))
    step = re.search(r"_step(\d+)$", file.stem)
    steps = step[1] if step else told["train"]["steps"] or math.nan
    return float(steps), float(told["scenario"].get("fraction", 1.0))
