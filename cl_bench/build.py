"""The one gate from YAML to Python: check() reads signatures without importing, build() calls."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import RULES

PACKAGE = Path(__file__).parent
Config = Mapping[str, Any]


def nearest(word: str, allowed: Sequence[str]) -> str:
    """'; did you mean a or b? Allowed: ...' for a message."""
    close = difflib.get_close_matches(word, allowed, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}allowed: {', '.join(allowed)}"


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
    if not target.startswith("cl_bench."):
        return []  # signature bound in build(), after the import
    signature = read_signature(target)
    if signature is None:
        return [f"{path}._target_={target} does not exist; name a class or function of cl_bench"]
    settings = {k: v for k, v in node.items() if not k.startswith("_")}
    names = [name for name in signature if name not in given]
    problems = [f"{path}.{k} is no setting of {target}; {nearest(k, names)}" for k in settings if k not in names]
    problems += [f"{path}.{k} is missing; {target} needs it" for k in names if k not in settings]
    for key in names:
        wanted = _mismatch(signature[key], settings[key]) if key in settings else None
        if wanted:
            problems.append(f"{path}.{key}={settings[key]} is not allowed; give {wanted}")
    return problems


@functools.cache
def _parse(module: str) -> ast.Module | None:
    file = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return ast.parse(file.read_text()) if file.exists() else None


def read_signature(target: str) -> dict[str, ast.expr | None] | None:
    """Keyword arguments and their annotations, from the source text; None if there is no such thing."""
    found = find(target)
    if isinstance(found, ast.FunctionDef):
        return {a.arg: a.annotation for a in found.args.kwonlyargs}
    if not isinstance(found, ast.ClassDef):
        return None
    for statement in found.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return {a.arg: a.annotation for a in statement.args.kwonlyargs}
    fields: dict[str, ast.expr | None] = {
        s.target.id: s.annotation for s in found.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
    }
    if any(isinstance(d, ast.Call) for d in found.decorator_list):  # @dataclass(...)
        return fields
    parents = [f"{target.rpartition('.')[0]}.{b.id}" for b in found.bases if isinstance(b, ast.Name)]
    return next((s for s in map(read_signature, parents) if s is not None), {})


def find(target: str) -> ast.stmt | None:
    module, _, name = target.rpartition(".")
    tree = _parse(module)
    kinds = (ast.ClassDef, ast.FunctionDef)
    return next((s for s in tree.body if isinstance(s, kinds) and s.name == name), None) if tree else None


def class_flag(target: str, flag: str) -> bool:
    """A class's `flag: ClassVar[bool] = True`, read from the source text."""
    found = find(target)
    body = found.body if isinstance(found, ast.ClassDef) else []
    return any(ast.unparse(s).startswith(f"{flag}:") and ast.unparse(s).endswith("= True") for s in body)


def _mismatch(annotation: ast.expr | None, value: Any) -> str | None:
    """None if value fits the annotation, else what would."""
    if annotation is None:
        return None
    text = ast.unparse(annotation)
    if isinstance(annotation, ast.BinOp):
        wants = [_mismatch(side, value) for side in (annotation.left, annotation.right)]
        return None if None in wants else " or ".join(w for w in wants if w)
    if text == "None":
        return None if value is None else "null"
    if text.startswith("Literal["):
        allowed = [str(ast.literal_eval(e)) for e in getattr(annotation.slice, "elts", [annotation.slice])]  # type: ignore[attr-defined]
        return None if str(value) in allowed else (f"one of {', '.join(allowed)}" if value is None else nearest(str(value), allowed))
    if text.startswith(("list[", "tuple[")):
        inner = annotation.slice  # type: ignore[attr-defined]
        fits = isinstance(value, list | tuple) and all(_mismatch(inner, v) is None for v in value)
        return None if fits else f"a list, [{text[5:-1]}, ...]"
    if text not in RULES:
        return None
    words, kind, rule = RULES[text]
    right = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    return None if right and (rule is None or rule(value)) else words


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
    return functools.partial(function, **settings, **given) if partial else function(**settings, **given)
