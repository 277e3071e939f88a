"""All mistakes of a composed config at once, before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cl_bench.build import check, class_flag, nearest
from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import RULES
from cl_bench.folder import READINGS
from cl_bench.metrics import summary
from cl_bench.scenarios.sizes import check_groups, check_kinds, task_sizes

NODES = {  # node -> arguments that the program adds
    "scenario": (),
    "data": (),
    "model": ("input_shape", "pretrained"),
    "objective": (),
    "strategy": (),
    "view": (),
    "probe": (),
}
SCALARS = {
    "seed": "Whole",
    "runtime.threads": "Whole",
    "runtime.save_seconds": "NonNegative",
    "runtime.outputs": "str",
    "runtime.save_backbone": "bool",
    "runtime.progress": "bool",
    "train.batch_size": "Count",
    "train.renew_optimizer": "bool",
    "train.backbone_rate": "NonNegative",
    "look.batch_size": "Count",
    "look.future": "bool",
    "look.before": "bool",
}
CHOICES = {
    "runtime.device": ("auto", "cpu", "cuda", "mps"),
    "train.batch_norm": ("train", "frozen"),
    "look.part": ("test", "valid"),
    "runtime.precision": ("32-true", "64-true", "bf16-mixed"),
}
SETTINGS = {
    "train": ("batch_size", "epochs", "steps", "clip", "batch_norm", "renew_optimizer", "backbone_rate", "optimizer", "schedule"),
    "look": ("part", "batch_size", "future", "before"),
    "runtime": ("outputs", "device", "precision", "threads", "save_seconds", "save_backbone", "search", "progress", "allow_targets"),
}
OF_MODEL = ("init", "image_size", "channels")  # read by run.py, not by the backbone


def problems(config: Mapping[str, Any]) -> list[str]:
    broken = list(_shape(config))
    if broken:
        return broken  # nothing below could be read
    allow = config["runtime"]["allow_targets"]
    found = [p for name, given in NODES.items() for p in check(_node(config, name), name, allow, given)]
    found += check(config["train"], "train", allow)
    for path, rule in SCALARS.items():
        words, kind, fits = RULES[rule]
        value = _at(config, path)
        kinds = (int, float) if kind is float else kind
        if not isinstance(value, kinds) or (kind is not bool and isinstance(value, bool)) or (fits and not fits(value)):
            found.append(f"{path}={said(value)} is not allowed; give {words}")
    for path, allowed in CHOICES.items():
        if _at(config, path) not in allowed:
            found.append(f"{path}={said(_at(config, path))} is not known; {nearest(str(_at(config, path)), allowed)}")
    return found + list(_across(config))


def _shape(config: Mapping[str, Any]) -> Iterator[str]:
    """Nodes and settings that everything below takes for granted."""
    for name in (*NODES, "train", "look", "runtime"):
        node = config.get(name)
        if not isinstance(node, Mapping):
            yield f"{name}={said(node)} is no group of settings; name a choice of it (--help lists them)"
        elif name in NODES and name != "probe" and not isinstance(node.get("_target_"), str):
            yield f"{name}._target_ is missing; name the class or function that the settings are for"
        elif name in SETTINGS:
            parts = [k for k in ("optimizer", "schedule") if name == "train" and k in node]
            yield from (
                f"train.{k}={said(node[k])} is not allowed; set train.{k}._target_ and its settings, or choose it with train=<name>"
                for k in parts
                if not (isinstance(node[k], Mapping) and isinstance(node[k].get("_target_"), str))
            )
            known = SETTINGS[name]
            yield from (f"{name}.{k} is missing; {nearest(k, known)}" for k in known if k not in node)
            yield from (f"there is no setting {name}.{k}; {nearest(k, known)}" for k in node if k not in known)
    if not re.fullmatch(r"[\w+=,-][\w.+=,-]*", str(config.get("tag"))):
        yield f"tag={said(config.get('tag'))} is no folder name; give letters, digits and any of . _ + = , -"


def said(value: Any) -> Any:
    """As the command line writes it."""
    return {None: "null", True: "true", False: "false"}.get(value, value) if value is None or isinstance(value, bool) else value


def _across(config: Mapping[str, Any]) -> Iterator[str]:
    train, scenario, strategy = config["train"], config["scenario"], config["strategy"]
    figures = [f"{reading}_{name}" for reading in READINGS for name in summary(np.full((1, 1), np.nan))]
    search = config["runtime"]["search"]
    if not isinstance(search, list) or not search or any(name not in figures for name in search):
        yield f"runtime.search={search} is not allowed; give a list of figures of summary.csv: {', '.join(figures)}"
    given = [name for name in ("epochs", "steps") if train[name] is not None]
    if len(given) != 1 or not isinstance(train[given[0]], int) or train[given[0]] < 1:
        yield (
            f"train.epochs={said(train['epochs'])} and train.steps={said(train['steps'])}: "
            "give one of them a whole number of 1 or more, null to the other"
        )
    try:
        _deal(scenario, config["data"]["num_classes"])
    except ConfigError as error:
        yield str(error)
    task_free = class_flag(scenario["_target_"], "task_free")
    if task_free or scenario.get("announced") is False:
        parts = strategy.get("parts", {"": strategy})
        names = [p["_target_"].rpartition(".")[2] for p in parts.values() if class_flag(p["_target_"], "needs_boundaries")]
        if names:
            yield (
                f"{' and '.join(names)} needs task boundaries, which this scenario hides; "
                f"use strategy=er or sequential, or {'scenario=split' if task_free else 'scenario.announced=true'}"
            )
    if train["clip"] is not None and (not isinstance(train["clip"], int | float) or isinstance(train["clip"], bool) or train["clip"] <= 0):
        yield f"train.clip={said(train['clip'])} is not allowed; give a number above 0, or null"
    init = config["model"]["init"]
    if init not in ("scratch", "pretrained") and not Path(str(init)).expanduser().is_file():
        yield f"model.init={init} is no file; give scratch, pretrained, or a .safetensors or .pth file"
    if config["look"]["part"] == "valid" and not scenario["valid_fraction"]:
        yield "look.part=valid needs held-out examples; set scenario.valid_fraction, for example 0.1"


def _deal(scenario: Mapping[str, Any], count: Any) -> None:
    """Whether the data's classes can be dealt out as asked; what is no list of numbers has been told already."""
    kind, what = scenario["_target_"].removeprefix("cl_bench.scenarios."), "classes"
    setting = {"split.Split": "tasks", "gaussian.Gaussian": "tests", "shift.Shift": "tasks"}.get(kind, "")
    if kind == "corrupted.Corrupted" and isinstance(scenario.get("kinds"), list) and isinstance(scenario.get("strengths"), Mapping):
        check_kinds(scenario["kinds"], list(scenario["strengths"]))
    if kind == "shift.Shift" and _whole(count) and _lists(scenario.get("groups")):
        check_groups(scenario["groups"], count)
        count, what = len(scenario["groups"][0]), "subclasses of each label"
    if setting and _whole(count) and _whole(scenario.get(setting)):
        task_sizes(count, scenario[setting], f"scenario.{setting}", what)


def _lists(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, list) and _whole(part) for part in value)


def _whole(value: Any) -> bool:
    """A whole number, or lists of them."""
    return all(map(_whole, value)) if isinstance(value, list) else isinstance(value, int) and not isinstance(value, bool)


def _node(config: Mapping[str, Any], name: str) -> Any:
    node = config[name]
    return {k: v for k, v in node.items() if k not in OF_MODEL} if name == "model" else node


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value[key]
    return value
