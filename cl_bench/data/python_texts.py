"""Text that every installation has: Python's standard library, its code and its docstrings apart, and packages as they stand."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from cl_bench.core.errors import ConfigError

# Tests, what is installed beside the library, and tables of code pages (a seventh of it, and no text).
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings"}
TOPICS = "pydoc_data/topics.py"  # the language reference as one dict of strings
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def stdlib() -> list[tuple[str, Path]]:
    """(name, path) of the library's own files, by name."""
    root, found = Path(sysconfig.get_path("stdlib")), []
    for folder, below, files in os.walk(root):
        below[:] = set(below) - LEFT_OUT
        found += [Path(folder) / file for file in files if file.endswith(".py")]
    return sorted((path.relative_to(root).as_posix(), path) for path in found)


def packages(names: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, path) of the files of installed packages, or parts of them such as torch.nn, found without importing them."""
    found: list[tuple[str, Path]] = []
    for name in names:
        top, *rest = name.split(".")
        spec = importlib.util.find_spec(top)
        root = Path(next(iter(spec.submodule_search_locations or ())), *rest) if spec and spec.submodule_search_locations else None
        if root is None or not root.is_dir():
            raise ConfigError(f"data.packages: {name} is no installed package; name packages that are, such as torch.nn")
        files = (path for path in root.rglob("*.py") if not LEFT_OUT & set(path.relative_to(root).parts))
        found += sorted((f"{name}/{path.relative_to(root).as_posix()}", path) for path in files)
    return found


def read(files: Sequence[tuple[str, Path]]) -> list[tuple[str, str]]:
    """(file, its text)."""
    found = []
    for name, path in files:
        with tokenize.open(path) as file:
            found.append((name, file.read()))
    return found


def fingerprint(files: Sequence[tuple[str, Path]]) -> str:
    """Of names and contents: distributors patch the library of one version."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}:{hashlib.sha256(path.read_bytes()).hexdigest()};".encode())
    return digest.hexdigest()


def source() -> list[tuple[str, str]]:
    """(file, its text without docstrings); comments stay."""
    return [(name, without_docstrings(text, tree)) for name, text, tree in _parsed() if name != TOPICS]


def docs() -> list[tuple[str, str]]:
    """(file, its docstrings, a blank line between two); the topics of Python's help are one file."""
    found = []
    for name, _, tree in _parsed():
        if name == TOPICS:
            strings = [n.value for d in ast.walk(tree) if isinstance(d, ast.Dict) for n in d.values if isinstance(n, ast.Constant)]
        else:
            strings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, Documented)]
        text = "\n\n".join(s.strip() for s in strings if isinstance(s, str) and s.strip())
        found += [(name, text)] if text else []
    return found


def without_docstrings(text: str, tree: ast.Module) -> str:
    """The statement goes, and its lines where nothing else stands on them."""
    lines = text.encode().splitlines(keepends=True)
    for node in ast.walk(tree):
        if not isinstance(node, Documented) or ast.get_docstring(node, clean=False) is None:
            continue
        string = node.body[0]
        first, last = string.lineno - 1, (string.end_lineno or string.lineno) - 1
        rest = lines[first][: string.col_offset] + lines[last][string.end_col_offset :]
        lines[first : last + 1] = [rest if rest.strip() else b""] + [b""] * (last - first)  # the numbers of later lines stay
    return b"".join(lines).decode()


def _parsed() -> Iterator[tuple[str, str, ast.Module]]:
    """(name, text, tree) of the library's files."""
    for name, text in read(stdlib()):
        yield name, text, ast.parse(text)
