"""Two text domains that every Python has: the code of its standard library, and the English of its docstrings."""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

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


def fingerprint() -> str:
    """Of names and contents: distributors patch the library of one version."""
    digest = hashlib.sha256()
    for name, path in stdlib():
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
    """(name, text, tree) of each file that is Python of this version."""
    for name, path in stdlib():
        with tokenize.open(path) as file:
            text = file.read()
        yield name, text, ast.parse(text)
