"""All mistakes of a composed config at once, before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cl_bench.build import check
from cl_bench.mistakes import nearest, refused, said
from cl_bench.rules import broken_rules
from cl_bench.signatures import mismatch

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
    "look.within": "list[Count] | None",
}
SETTINGS = {
    "train": ("batch_size", "epochs", "steps", "clip", "batch_norm", "renew_optimizer", "backbone_rate", "optimizer", "schedule"),
    "look": ("part", "batch_size", "future", "before", "within"),
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
    return found + list(broken_rules(config))


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
            if name == "runtime" and mismatch("list[str]", node.get("allow_targets")):
                yield refused("runtime.allow_targets", node.get("allow_targets"), "a list of beginnings, [cl_bench.,torch.optim.]")
            yield from (f"{name}.{k} is missing; {nearest(k, known)}" for k in known if k not in node)
            yield from (f"there is no setting {name}.{k}; {nearest(k, known)}" for k in node if k not in known)
    if isinstance(config.get("model"), Mapping):
        yield from (
            f"model.{k} is missing; add it to the model's YAML, for example {k}: {v}"
            for k, v in OF_MODEL.items()
            if k not in config["model"]
        )
    if not re.fullmatch(r"[\w+=,-][\w.+=,-]*", str(said(config.get("tag")))) or config.get("tag") is None:
        yield f"tag={said(config.get('tag'))} is no folder name; give letters, digits and any of . _ + = , -"


def _node(config: Mapping[str, Any], name: str) -> Any:
    node = config[name]
    return {k: v for k, v in node.items() if k not in OF_MODEL} if name == "model" else node


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value[key]
    return value
