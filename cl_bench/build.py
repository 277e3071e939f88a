"""The one gate from YAML to Python: check() reads signatures without importing, build() calls."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import nearest, refused, said
from cl_bench.signatures import mismatch, missing, read_signature

Config = Mapping[str, Any]
OF_TORCH = dict.fromkeys(("lr", "momentum", "weight_decay", "eps"), "NonNegative")  # torch says float | Tensor


def check(node: Any, path: str, allow: Sequence[str], given: Sequence[str] = ()) -> list[str]:
    """Problems of a config node and all below it; `given` names arguments that the program adds."""
    if isinstance(node, Mapping):
        problems = _check_target(node, path, allow, given) if "_target_" in node else []
        children: Any = node.items()
    elif isinstance(node, list):
        problems, children = [], enumerate(node)
    else:
        return []
    return problems + [p for key, child in children for p in check(child, f"{path}.{key}", allow)]


def _check_target(node: Config, path: str, allow: Sequence[str], given: Sequence[str]) -> list[str]:
    target = node["_target_"]
    if not isinstance(target, str) or not target.startswith(tuple(allow)):
        return [f"{path}._target_={target} is not allowed to be called; allowed beginnings: {', '.join(allow)} (runtime.allow_targets)"]
    signature = read_signature(target)
    if signature is None:
        gone = missing(target)  # else a signature that only the import knows: build() binds it
        return [f"{path}._target_={target} does not exist; {gone}"] if gone else []
    settings = {k: v for k, v in node.items() if not k.startswith("_")}
    names = [name for name in signature if name not in given]
    needed = [] if node.get("_partial_") else [name for name in names if signature[name].needed]
    problems = [f"{path}.{k} is no setting of {target}; {nearest(k, names)}" for k in settings if k not in names]
    problems += [f"{path}.{k} is missing; {target} needs it" for k in needed if k not in settings]
    for key in names:
        kind = OF_TORCH.get(key, signature[key].kind) if target.startswith("torch.") else signature[key].kind
        wanted = mismatch(kind, settings[key]) if kind and key in settings else None
        if wanted:
            problems.append(refused(f"{path}.{key}", settings[key], wanted))
    return problems


def build(node: Any, allow: Sequence[str], **given: Any) -> Any:
    """The object a checked node describes, children first; `_partial_: true` gives a function of the rest."""
    if isinstance(node, list):
        return [build(child, allow) for child in node]
    if not isinstance(node, Mapping):
        return node
    settings = {k: build(v, allow) for k, v in node.items() if k not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return settings
    target = node["_target_"]
    if not target.startswith(tuple(allow)):
        raise ConfigError(f"_target_={target} is not allowed to be called; allowed beginnings: {', '.join(allow)}")
    module, _, name = target.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_={target} cannot be imported ({error}); correct the name or install what it needs") from error
    partial = bool(node.get("_partial_"))
    try:
        signature = inspect.signature(function)
        (signature.bind_partial if partial else signature.bind)(**settings, **given)
    except TypeError as error:
        raise ConfigError(f"_target_={target}: {error}; its settings are {', '.join(signature.parameters)}") from error
    make = functools.partial(_make, function, target, **settings, **given)
    return make if partial else make()


def _make(function: Callable[..., Any], target: str, /, *given: Any, **settings: Any) -> Any:
    """What a class or function says against its settings is the user's to correct."""
    try:
        return function(*given, **settings)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        plain = ", ".join(f"{k}={said(v)}" for k, v in settings.items() if isinstance(v, str | int | float | list | None))
        raise ConfigError(f"{target} cannot be made with {plain} ({error}); correct these settings") from error
