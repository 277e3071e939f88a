"""A composed config as plain values: names of data sets become their settings, data= brings its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import first_line, nearest

SHARED = ("tokens", "vocabulary", "tokenizer", "length", "test_blocks")  # what data= says of these holds for every set of a row


def _when(switch: Any, yes: Any, no: Any) -> Any:
    if not isinstance(switch, bool):
        raise ConfigError(f"{switch} is given for a switch (offline, full); give true or false")
    return yes if switch else no


OmegaConf.register_new_resolver("cl_join", lambda names: "+".join(map(str, names)), replace=True)
OmegaConf.register_new_resolver("cl_when", _when, replace=True)


def resolve(config: DictConfig, folders: Sequence[Path], named: bool = True) -> dict[str, Any]:
    """named=False leaves out what only Hydra knows (the choices by name), where it has not composed."""
    tree = config.copy()
    OmegaConf.set_struct(tree, False)
    for key in {"hydra", *(() if named else ("name", "folder"))} & set(tree):
        del tree[key]
    names = OmegaConf.select(tree, "scenario.datasets")
    if names is not None:
        files = {file.stem: file for folder in reversed(folders) for file in (folder / "data").glob("*.yaml")}
        if not isinstance(names, ListConfig) or not names or len(set(map(str, names))) < len(names):
            given = f"[{','.join(map(str, names))}]" if isinstance(names, ListConfig) else names
            raise ConfigError(f"scenario.datasets={given} is not allowed; give a list of names, each once, such as [digits,mnist5k]")
        unknown = [str(n) for n in names if n not in files]
        if unknown:
            raise ConfigError(f"scenario.datasets: {', '.join(unknown)} not known; {nearest(unknown[0], sorted(files))}")
        chosen = tree.get("data") or {}
        told = {key: chosen[key] for key in SHARED if key in chosen}
        loaded = {n: load(str(n), files) for n in names}
        tree["datasets"] = {
            n: chosen if chosen.get("name") == n else OmegaConf.merge(node, {k: v for k, v in told.items() if k in node})
            for n, node in loaded.items()
        }
    try:
        return OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except InterpolationKeyError as error:
        raise ConfigError(leads_nowhere(tree, error)) from error


def leads_nowhere(tree: DictConfig, error: InterpolationKeyError) -> str:
    """The line about a ${...} whose key is not there: the setting that sent it there, and what stands where its way ends."""
    found = re.match(r"Interpolation key '([^']+)' not found", str(error))
    raw = OmegaConf.to_container(cast(DictConfig, error.parent_node))[error.key]  # type: ignore[index]
    if found is None or "${." in str(raw):  # of a relative one the error tells no place
        return f"{error.full_key}={raw} is not allowed: {first_line(error)}; correct it"
    parts = found[1].split(".")
    nodes = [tree, *(OmegaConf.select(tree, ".".join(parts[:i]), throw_on_resolution_failure=False) for i in range(1, len(parts)))]
    depth = max(i for i, node in enumerate(nodes) if isinstance(node, DictConfig))
    settings = cast(dict, OmegaConf.to_container(tree))
    given = next((f"{name}={value}" for name, value in settings.items() if value == parts[depth]), f"{error.full_key}={raw}")
    allowed = nearest(parts[depth], list(map(str, nodes[depth])))
    return f"{given} is not allowed: there is no {'.'.join(parts[: depth + 1])}; give another; {allowed}"


def load(name: str, files: Mapping[str, Path]) -> DictConfig:
    """A data set's file, with what its defaults list begins from, as Hydra has it: `x`, or `x@key` for a part."""
    own = cast(DictConfig, OmegaConf.load(files[name]))
    node = OmegaConf.create({})
    for entry in own.pop("defaults", ["_self_"]):
        base, _, key = str(entry).partition("@")
        part = own if base == "_self_" else load(base, files)
        node = cast(DictConfig, OmegaConf.merge(node, {key: part} if key else part))
    return node
