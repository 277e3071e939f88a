"""Mistakes that take two parts of a config to see; torch is not imported yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cl_bench.core.errors import ConfigError
from cl_bench.folder import READINGS
from cl_bench.metrics import loss_summary, summary
from cl_bench.mistakes import about, nearest, said, unwritable
from cl_bench.scenarios.sizes import check_groups, check_kinds, task_sizes
from cl_bench.signatures import class_flag, mismatch, read_signature


def broken_rules(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a config whose parts are each well-formed."""
    for rule in RULES:
        yield from rule(config)


def _of_search(config: Mapping[str, Any]) -> Iterator[str]:
    unknown = np.full((1, 1), np.nan)
    figures = [f"{reading}_{name}" for reading in READINGS for name in summary(unknown)] + [f"loss_{n}" for n in loss_summary(unknown)]
    search = config["runtime"]["search"]
    if not isinstance(search, list) or not search or any(name not in figures for name in search):
        wrong = next((str(name) for name in search if name not in figures), "") if isinstance(search, list) else str(search)
        yield f"runtime.search={search} is not allowed; give a list of figures of summary.csv; {nearest(wrong, figures)}"


def _of_length(config: Mapping[str, Any]) -> Iterator[str]:
    train = config["train"]
    given = [name for name in ("epochs", "steps") if train[name] is not None]
    if len(given) != 1 or mismatch("Count", train[given[0]]):
        yield (
            f"train.epochs={said(train['epochs'])} and train.steps={said(train['steps'])}: "
            "give one of them a whole number of 1 or more, null to the other"
        )


def _of_tasks(config: Mapping[str, Any]) -> Iterator[str]:
    try:
        _deal(config["scenario"], config["data"].get("num_classes"))
    except ConfigError as error:
        yield str(error)


def _of_boundaries(config: Mapping[str, Any]) -> Iterator[str]:
    scenario = config["scenario"]
    task_free = class_flag(scenario["_target_"], "task_free")
    names = [t.rpartition(".")[2] for t in targets(config["strategy"]) if class_flag(t, "needs_boundaries")]
    if names and (task_free or scenario.get("announced") is False):
        yield (
            f"{' and '.join(names)} needs task boundaries, which this scenario hides; "
            f"use strategy=er or sequential, or {'scenario=split' if task_free else 'scenario.announced=true'}"
        )


def _of_weights(config: Mapping[str, Any]) -> Iterator[str]:
    init = config["model"]["init"]
    weights = Path(str(init)).expanduser()
    if init not in ("scratch", "pretrained") and not (weights.is_file() and os.access(weights, os.R_OK)):
        first = f"run this first: {config['first']}" if "first" in config else "give scratch, pretrained, or a .safetensors or .pth file"
        yield f"model.init={said(init)} is no file that can be read; {first}"


def _of_held_out(config: Mapping[str, Any]) -> Iterator[str]:
    held = config["scenario"].get("valid_fraction")
    if config["look"]["part"] == "valid" and not held:
        yield "look.part=valid needs held-out examples; set scenario.valid_fraction, for example 0.1"
    if held == 1:
        yield f"scenario.valid_fraction={held} leaves nothing to train on; give less than 1, for example 0.1"


def _of_match(config: Mapping[str, Any]) -> Iterator[str]:
    """Of presets that compare models at equal accuracy on the first task (match.py)."""
    if "match" not in config:
        return
    match = config["match"]
    if not isinstance(match, Mapping) or set(match) != {"run", "every"} or mismatch("Count", match["every"]):
        yield f"match={said(match)} is not allowed; give {{run: <folder of a finished run> or null, every: <steps between two looks>}}"
    elif not config["scenario"].get("valid_fraction"):
        yield "match needs held-out examples; set scenario.valid_fraction, for example 0.1"


def _of_votes(config: Mapping[str, Any]) -> Iterator[str]:
    strategy = config["strategy"]
    if strategy.get("selection") == "batchwise" and 1 in (config["look"]["batch_size"], strategy.get("vote")):
        yield (
            "strategy.selection=batchwise is a vote, and one image at a time (look.batch_size=1 or strategy.vote=1) has none to vote with; "
            "give strategy.selection=per_sample, or larger batches"
        )


def _of_figures(config: Mapping[str, Any]) -> Iterator[str]:
    if not {"accuracy", "knn"} & set(config["probe"]) and not _reads_text(config["data"]) and "datasets" not in config:
        probes = ",".join(["accuracy", *config["probe"]])
        yield f"probe.accuracy is missing, and the tables and the summary are made of it; give probe=[{probes}]"


def _of_outputs(config: Mapping[str, Any]) -> Iterator[str]:
    outputs = config["runtime"]["outputs"]
    if outputs == "":
        yield "runtime.outputs= names no folder; give one, for example outputs (. is the folder you are in)"
    barred = unwritable(Path(outputs)) if isinstance(outputs, str) else None
    if barred:
        yield f"runtime.outputs={outputs}: {about(barred, 'runtime.outputs')}"


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
    text, data = kinds.pop(), config["data"]
    if text and data.get("root") is not None and data.get("name") not in given and "datasets" in config:
        yield (
            f"data.root={said(data['root'])} is of data={data['name']}, which is not among scenario.datasets=[{','.join(given)}]; "
            f"give 'scenario.datasets=[{data['name']}]', with others if you like, or no root"
        )
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
    names = [t.rpartition(".")[2] for t in targets(config["strategy"]) if class_flag(t, "needs_classes")]
    if names:
        yield f"{' and '.join(names)} works on classes, and text has none; use sequential, joint, er, der, ewc, si, mas, lwf or agem"
    sized = [key for key in ("image_size", "channels") if config["model"][key] is not None]
    if sized:
        yield f"model.{sized[0]}={config['model'][sized[0]]}: text has no such thing; give null"


def _of_unlabelled(config: Mapping[str, Any]) -> Iterator[str]:
    """Objectives without labels give features and no logits."""
    if not class_flag(config["objective"]["_target_"], "self_supervised"):
        return
    name = str(config["objective"]["_target_"]).rpartition(".")[2]
    asked = [key for key, node in config["probe"].items() if class_flag(str(node.get("_target_")), "needs_logits")]
    if asked:
        rest = ",".join([*(key for key in config["probe"] if key not in (*asked, "knn")), "knn"])
        yield f"probe.{asked[0]} reads logits, and objective {name} has none; give probe=[{rest}]"
    names = [t.rpartition(".")[2] for t in targets(config["strategy"]) if class_flag(t, "needs_logits")]
    balanced = [path for path in _settings(config["strategy"], "strategy", "memory") if path.endswith("=balanced")]
    if names or balanced:
        what = f"{' and '.join(names)} works on logits" if names else f"{balanced[0]} goes by labels"
        yield f"{what}, and objective {name} has none; use sequential, joint, cumulative, si, er, der, derpp, agem, pnn or lump"
    if config["train"]["batch_size"] == 1:
        yield f"train.batch_size=1: objective {name} standardises over the images of a batch, and one has no spread; give 2 or more"


def targets(node: Any) -> list[str]:
    """Of a node and all below it."""
    if not isinstance(node, Mapping):
        return []
    return [t for k, child in node.items() for t in ([str(child)] if k == "_target_" else targets(child))]


def _settings(node: Mapping[str, Any], path: str, name: str) -> list[str]:
    """path.name=value, of a node and all below it."""
    found = [f"{path}.{name}={node[name]}"] if name in node else []
    return found + [s for k, child in node.items() if isinstance(child, Mapping) for s in _settings(child, f"{path}.{k}", name)]


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
    """A whole number, or a list of them."""
    return all(isinstance(v, int) and not isinstance(v, bool) for v in (value if isinstance(value, list) else [value]))


RULES: tuple[Callable[[Mapping[str, Any]], Iterator[str]], ...] = (
    *(_of_search, _of_length, _of_tasks, _of_boundaries, _of_weights, _of_held_out, _of_match, _of_votes),
    *(_of_text, _of_unlabelled, _of_figures, _of_outputs),
)
