"""All mistakes of a composed config at once, before anything heavy is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cl_bench.build import check
from cl_bench.core.errors import ConfigError
from cl_bench.folder import READINGS
from cl_bench.metrics import loss_summary, summary
from cl_bench.mistakes import about, nearest, refused, said, unwritable
from cl_bench.scenarios.sizes import check_groups, check_kinds, task_sizes
from cl_bench.signatures import class_flag, mismatch, read_signature

NODES = {  # node -> arguments that the program adds
    "scenario": (),
    "data": (),
    "model": ("input_shape", "pretrained", "vocabulary"),
    "objective": (),
    "strategy": (),
    "view": (),
    "probe": (),
}
KINDS = {
    "seed": "Whole",
    "runtime.threads": "Whole",
    "runtime.save_seconds": "NonNegative",
    "runtime.outputs": "str",
    "runtime.save_backbone": "bool | list[Count]",
    "runtime.channels_last": "bool",
    "runtime.compile": "bool",
    "runtime.progress": "bool",
    "runtime.device": "Literal['auto', 'cpu', 'cuda', 'mps']",
    "runtime.precision": "Literal['32-true', '64-true', 'bf16-mixed']",
    "model.image_size": "Count | None",
    "model.channels": "Literal[1, 3] | None",
    "train.batch_size": "Count",
    "train.batch_norm": "Literal['train', 'frozen']",
    "train.clip": "Positive | None",
    "train.renew_optimizer": "bool",
    "train.backbone_rate": "NonNegative",
    "look.part": "Literal['test', 'valid']",
    "look.batch_size": "Count",
    "look.future": "bool",
    "look.before": "bool",
}
SETTINGS = {
    "train": ("batch_size", "epochs", "steps", "clip", "batch_norm", "renew_optimizer", "backbone_rate", "optimizer", "schedule"),
    "look": ("part", "batch_size", "future", "before"),
    "runtime": (
        *("outputs", "device", "precision", "channels_last", "compile", "threads"),
        *("save_seconds", "save_backbone", "search", "progress", "allow_targets"),
    ),
}
OF_MODEL = {"init": "scratch", "image_size": "null", "channels": "null"}  # read by run.py, not by the backbone


def problems(config: Mapping[str, Any]) -> list[str]:
    broken = list(_shape(config))
    if broken:
        return broken  # nothing below could be read
    allow = config["runtime"]["allow_targets"]
    found = [p for name, given in NODES.items() for p in check(_node(config, name), name, allow, given)]
    found += check(config["train"], "train", allow)
    wanted = {path: mismatch(kind, _at(config, path)) for path, kind in KINDS.items()}
    found += [refused(path, _at(config, path), words) for path, words in wanted.items() if words]
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
    if isinstance(config.get("model"), Mapping):
        yield from (
            f"model.{k} is missing; add it to the model's YAML, for example {k}: {v}"
            for k, v in OF_MODEL.items()
            if k not in config["model"]
        )
    if not re.fullmatch(r"[\w+=,-][\w.+=,-]*", str(config.get("tag"))):
        yield f"tag={said(config.get('tag'))} is no folder name; give letters, digits and any of . _ + = , -"


def _across(config: Mapping[str, Any]) -> Iterator[str]:
    train, scenario, strategy = config["train"], config["scenario"], config["strategy"]
    unknown = np.full((1, 1), np.nan)
    figures = [f"{reading}_{name}" for reading in READINGS for name in summary(unknown)] + [f"loss_{n}" for n in loss_summary(unknown)]
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
        _deal(scenario, config["data"].get("num_classes"))
    except ConfigError as error:
        yield str(error)
    task_free = class_flag(scenario["_target_"], "task_free")
    if task_free or scenario.get("announced") is False:
        names = [t.rpartition(".")[2] for t in _targets(strategy) if class_flag(t, "needs_boundaries")]
        if names:
            yield (
                f"{' and '.join(names)} needs task boundaries, which this scenario hides; "
                f"use strategy=er or sequential, or {'scenario=split' if task_free else 'scenario.announced=true'}"
            )
    init = config["model"]["init"]
    weights = Path(str(init)).expanduser()
    if init not in ("scratch", "pretrained") and not (weights.is_file() and os.access(weights, os.R_OK)):
        first = f"run this first: {config['first']}" if "first" in config else "give scratch, pretrained, or a .safetensors or .pth file"
        yield f"model.init={said(init)} is no file that can be read; {first}"
    held = scenario.get("valid_fraction")
    if config["look"]["part"] == "valid" and not held:
        yield "look.part=valid needs held-out examples; set scenario.valid_fraction, for example 0.1"
    if held == 1:
        yield f"scenario.valid_fraction={held} leaves nothing to train on; give less than 1, for example 0.1"
    if "match" in config:
        yield from _of_match(config["match"], held)
    if strategy.get("selection") == "batchwise" and 1 in (config["look"]["batch_size"], strategy.get("vote")):
        yield (
            "strategy.selection=batchwise is a vote, and one image at a time (look.batch_size=1 or strategy.vote=1) has none to vote with; "
            "give strategy.selection=per_sample, or larger batches"
        )
    yield from _of_text(config)
    unlabelled = class_flag(config["objective"]["_target_"], "self_supervised")
    yield from _of_unlabelled(config) if unlabelled else ()
    if not {"accuracy", "knn"} & set(config["probe"]) and not _reads_text(config["data"]) and "datasets" not in config:
        probes = ",".join(["accuracy", *config["probe"]])
        yield f"probe.accuracy is missing, and the tables and the summary are made of it; give probe=[{probes}]"
    outputs = config["runtime"]["outputs"]
    barred = unwritable(Path(outputs)) if isinstance(outputs, str) else None
    if barred:
        yield f"runtime.outputs={outputs}: {about(barred, 'runtime.outputs')}"


def _of_match(match: Any, held: Any) -> Iterator[str]:
    """Of presets that compare models at equal accuracy on the first task (match.py)."""
    if not isinstance(match, Mapping) or set(match) != {"run", "every"} or mismatch("Count", match["every"]):
        yield f"match={said(match)} is not allowed; give {{run: <folder of a finished run> or null, every: <steps between two looks>}}"
    elif not held:
        yield "match needs held-out examples; set scenario.valid_fraction, for example 0.1"


def _reads_text(node: Any) -> bool:
    """Of a part of the config: text is what it is made for."""
    target = str(node.get("_target_"))
    return class_flag(target, "text") or "vocabulary" in (read_signature(target) or {})


def _of_text(config: Mapping[str, Any]) -> Iterator[str]:
    """Text wants all parts to be for text, and images none."""
    given = config.get("datasets") or {"": config["data"]}
    kinds = {_reads_text(node) for node in given.values()}
    if len(kinds) > 1:
        yield f"scenario.datasets={list(given)}: some are text and some are images; give one kind"
        return
    text = kinds.pop()
    parts = {name: config[name] for name in ("model", "objective", "view")} | {f"probe.{k}": v for k, v in config["probe"].items()}
    wrong = [name for name, node in parts.items() if _reads_text(node) != text]
    if wrong and text:
        yield (
            f"the data is text, which {', '.join(wrong)} cannot take; leave these to scenario=text (model=lm_nano objective=causal_lm "
            "view=tokens probe=tokens)"
        )
    elif wrong:
        yield f"{', '.join(wrong)} is for text, but the data is images; use scenario=text, or data=python_docs and its like"
    if not text:
        return
    if not class_flag(config["scenario"]["_target_"], "text"):
        yield "this scenario deals out labelled images, but the data is text; use scenario=text"
    names = [t.rpartition(".")[2] for t in _targets(config["strategy"]) if class_flag(t, "needs_classes")]
    if names:
        yield f"{' and '.join(names)} works on classes, and text has none; use sequential, joint, er, der, ewc, si, mas, lwf or agem"
    sized = [key for key in ("image_size", "channels") if config["model"][key] is not None]
    if sized:
        yield f"model.{sized[0]}={config['model'][sized[0]]}: text has no such thing; give null"


def _of_unlabelled(config: Mapping[str, Any]) -> Iterator[str]:
    """Objectives without labels give features and no logits."""
    name = str(config["objective"]["_target_"]).rpartition(".")[2]
    asked = [key for key, node in config["probe"].items() if class_flag(str(node.get("_target_")), "needs_logits")]
    if asked:
        rest = ",".join([*(key for key in config["probe"] if key not in (*asked, "knn")), "knn"])
        yield f"probe.{asked[0]} reads logits, and objective {name} has none; give probe=[{rest}]"
    names = [t.rpartition(".")[2] for t in _targets(config["strategy"]) if class_flag(t, "needs_logits")]
    balanced = config["strategy"].get("memory") == "balanced"
    if names or balanced:
        what = f"{' and '.join(names)} works on logits" if names else "strategy.memory=balanced goes by labels"
        yield f"{what}, and objective {name} has none; use sequential, joint, cumulative, si, er, der, derpp, agem, pnn or lump"
    if config["train"]["batch_size"] == 1:
        yield f"train.batch_size=1: objective {name} standardises over the images of a batch, and one has no spread; give 2 or more"


def _targets(node: Any) -> list[str]:
    """Of a node and all below it."""
    if not isinstance(node, Mapping):
        return []
    return [t for k, child in node.items() for t in ([str(child)] if k == "_target_" else _targets(child))]


def _deal(scenario: Mapping[str, Any], count: Any) -> None:
    """Whether the data's classes can be dealt out as asked; what is no list of numbers has been told already."""
    kind, what = scenario["_target_"].removeprefix("cl_bench.scenarios."), "classes"
    setting = {"split.Split": "tasks", "few.Few": "tasks", "gaussian.Gaussian": "tests", "shift.Shift": "tasks"}.get(kind, "")
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
