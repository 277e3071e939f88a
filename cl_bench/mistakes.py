"""The words of one line: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REMEDIES = {
    errno.ENOSPC: "free some room",
    errno.EDQUOT: "free some room",
    errno.ENOENT: "the path does not exist: correct it",
    errno.ENOTDIR: "a file stands where a folder should: choose another folder",
}


CLASS = re.compile(r"^\w+(Exception|Error)( raised while [^:]+)?: ")  # of a library's error, no word of the user's


def nearest(word: str, allowed: Sequence[str]) -> str:
    """'did you mean a or b? allowed: ...' for a message."""
    close = difflib.get_close_matches(word, allowed, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}allowed: {', '.join(allowed) or 'none'}"


def said(value: Any) -> Any:
    """As the command line writes it."""
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else value


def refused(key: str, value: Any, wanted: str) -> str:
    """The line about a value of the wrong kind."""
    return f"{key} is not set; set {key}=<{wanted}>" if value is None else f"{key}={said(value)} is not allowed; give {wanted}"


def about(error: OSError, setting: str = "") -> str:
    """What went wrong with which file, and what to do; `setting` chooses the folder."""
    remedy = REMEDIES.get(error.errno or 0, "choose another folder, or change its permissions")
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; {remedy}" + (f" ({setting}=<folder>)" if setting else "")


def unwritable(folder: Path) -> OSError | None:
    """Why nothing could be made in a folder that may not be there yet."""
    try:
        place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    except OSError as error:
        return error
    number = errno.ENOTDIR if not place.is_dir() else 0 if os.access(place, os.W_OK | os.X_OK) else errno.EACCES
    return OSError(number, os.strerror(number), str(place)) if number else None


def first_line(error: BaseException) -> str:
    lines = [line for line in (str(error) or str(error.__cause__)).splitlines() if line.strip()]
    return CLASS.sub("", " ".join(lines[0].split())) if lines else type(error).__name__


def kinds(messages: Sequence[str]) -> list[str]:
    """Messages that differ in numbers alone are told once."""
    alike: dict[str, list[str]] = {}
    for message in messages:
        alike.setdefault(re.sub(r"\b(nan|inf)\b|\d+(\.\d+)?(e[+-]?\d+)?", "#", message), []).append(message)
    return [same[0] + (f" (and {len(same) - 1} more of this kind)" if len(same) > 1 else "") for same in alike.values()]


def fail(message: str, status: int = 2) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
