"""What settings a class or function takes, read from its source text: nothing is imported."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import RULES
from cl_bench.mistakes import nearest

Definition = (ast.ClassDef, ast.FunctionDef)


class Parameter(NamedTuple):
    kind: str | None  # the annotation
    needed: bool


class Source(NamedTuple):
    text: str
    tree: ast.Module
    package: str  # that relative imports start from


@functools.cache
def _source(module: str) -> Source | None:
    """A module as it is written, found as import would, without running it or the packages above it."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        return None
    files = [Path(place, *rest) for place in spec.submodule_search_locations or ()]
    files = [f for file in files for f in (file.with_name(f"{file.name}.py"), file / "__init__.py")] or [Path(str(spec.origin))]
    file = next((f for f in files if f.is_file() and f.suffix == ".py"), None)
    if file is None:
        return None
    text = file.read_text()
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"{file}, line {error.lineno}: {error.msg}; correct it") from error
    return Source(text, tree, module if file.name == "__init__.py" else module.rpartition(".")[0])


def missing(target: str) -> str:
    """What to do about a target that its module does not so much as name; empty if it does."""
    module, _, name = target.rpartition(".")
    source = _source(module)
    if source is None:
        return f"there is no module {module}; correct the name, install it, or add its folder to PYTHONPATH"
    if re.search(rf"\b{re.escape(name)}\b|import \*", source.text):
        return ""
    defined = [s.name for s in source.tree.body if isinstance(s, Definition)]
    imported = [name for s in source.tree.body for name in _imported(s)]  # what a package is made of
    return nearest(name, [n for n in defined or imported if not n.startswith("_")])


def _imported(statement: ast.stmt) -> dict[str, str]:
    """Names that `from x import a as b` binds -> their names there."""
    return {a.asname or a.name: a.name for a in statement.names} if isinstance(statement, ast.ImportFrom) else {}


def find(target: str) -> tuple[str, ast.ClassDef | ast.FunctionDef] | None:
    """(module, definition) of a class or function, followed through the imports of packages."""
    module, _, name = target.rpartition(".")
    source = _source(module) if module else None
    for statement in source.tree.body if source else ():
        if isinstance(statement, Definition) and statement.name == name:
            return module, statement
        if isinstance(statement, ast.ImportFrom) and name in _imported(statement):
            return find(f"{_origin(module, statement)}.{_imported(statement)[name]}")
    return None


def _origin(module: str, statement: ast.ImportFrom) -> str:
    source = _source(module)
    return importlib.util.resolve_name("." * statement.level + (statement.module or ""), source.package if source else None)


def read_signature(target: str) -> dict[str, Parameter] | None:
    """Settings and their kinds, from the source text; None if that does not tell. `**rest` of a class is what its base takes."""
    module, found = find(target) or ("", None)
    if isinstance(found, ast.FunctionDef):
        return None if found.args.kwarg else _parameters(found.args, found.args.args)
    if found is None:
        return None
    for statement in found.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            own = _parameters(statement.args, statement.args.args[1:])
            if not statement.args.kwarg:
                return own
            inherited = _inherited(module, found)
            return {**inherited, **own} if inherited else None
    if any(isinstance(d, ast.Call) for d in found.decorator_list):  # @dataclass(...)
        fields = [s for s in found.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        return {s.target.id: Parameter(ast.unparse(s.annotation), s.value is None) for s in fields}  # type: ignore[union-attr]
    return _inherited(module, found)


def _inherited(module: str, found: ast.ClassDef) -> dict[str, Parameter] | None:
    """What the first base whose source tells takes."""
    parents = [read_signature(base) for base in _bases(module, found)]
    return next((s for s in parents if s is not None), None if parents else {})


def _bases(module: str, found: ast.ClassDef) -> list[str]:
    """Targets of what a class is built on: names of its module, or of what the module imports."""
    source = _source(module)
    bound: dict[str, str] = {}
    for statement in source.tree.body if source else ():
        if isinstance(statement, ast.Import):
            bound |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0] for a in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            bound |= {name: f"{_origin(module, statement)}.{there}" for name, there in _imported(statement).items()}
    names = [ast.unparse(base.value if isinstance(base, ast.Subscript) else base).partition(".") for base in found.bases]
    targets = [bound.get(first, f"{module}.{first}") + dot + rest for first, dot, rest in names]
    return [target for target in targets if target != f"{module}.{found.name}"]  # bound in a way not seen here


def _parameters(args: ast.arguments, positional: Sequence[ast.arg]) -> dict[str, Parameter]:
    first = len(positional) - len(args.defaults)
    needed = [(a, i < first) for i, a in enumerate(positional)]
    needed += [(a, default is None) for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return {a.arg: Parameter(ast.unparse(a.annotation) if a.annotation else None, n) for a, n in needed}


def class_flag(target: str, flag: str) -> bool:
    """A class's `flag: ClassVar[bool] = True`, its own or of a base, read from the source text."""
    module, found = find(target) or ("", None)
    if not isinstance(found, ast.ClassDef):
        return False
    for line in map(ast.unparse, found.body):
        if re.match(rf"{flag}( = |: )", line):
            return line.endswith("= True")
    return any(class_flag(base, flag) for base in _bases(module, found))


def mismatch(kind: str, value: Any) -> str | None:
    """None if value fits the annotation, else what would."""
    return _mismatch(ast.parse(kind, mode="eval").body, value)


def _mismatch(annotation: ast.expr, value: Any) -> str | None:
    text = ast.unparse(annotation)
    if isinstance(annotation, ast.BinOp):
        wants = [_mismatch(side, value) for side in (annotation.left, annotation.right)]
        return None if None in wants else " or ".join(w for w in wants if w)
    if text == "None":
        return None if value is None else "null"
    if text.startswith("Literal["):
        allowed = [str(ast.literal_eval(e)) for e in getattr(annotation.slice, "elts", [annotation.slice])]  # type: ignore[attr-defined]
        close = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
        return None if str(value) in allowed else f"one of {', '.join(allowed)}{''.join(f' (did you mean {c}?)' for c in close)}"
    if text.startswith(("list[", "tuple[")):
        inner = annotation.slice  # type: ignore[attr-defined]
        fits = isinstance(value, list | tuple) and all(_mismatch(inner, v) is None for v in value)
        word = RULES.get(ast.unparse(inner), (ast.unparse(inner),))[0]
        return None if fits else f"a list [a, b, ...], of each {word}"
    if text not in RULES:
        return None
    words, kind, rule = RULES[text]
    right = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    return None if right and (rule is None or rule(value)) else words
