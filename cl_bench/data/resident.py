"""A decoded data set lives in one checked file of uint8 images or tokens and labels, read by memory map."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.types import Examples

LAYOUT = 1  # of the file below; another number makes every cached file anew
KEYS = ("train.raw", "train.y", "test.raw", "test.y")


Details = Mapping[str, Sequence[str] | Sequence[int]]  # of a Dataset's last fields, by name

Pair = tuple[Examples, Examples]  # train and test, decoded


@dataclass(frozen=True)
class Dataset:
    """What every source answers with; checksum goes into a run's provenance."""

    name: str
    train: Examples
    test: Examples
    num_classes: int
    checksum: str
    class_names: tuple[str, ...] = ()  # by label, where the source has any
    tokenizer: tuple[str, ...] = ()  # sha256 of the BPE that made the tokens, if one did
    parts: tuple[int, ...] = ()  # sizes of the sessions that train consists of, one after the other


def load(
    name: str,
    settings: Mapping[str, object],
    cache: Path,
    decode: Callable[[], tuple[Examples, Examples] | tuple[Examples, Examples, Details]],
    num_classes: int | None,
) -> Dataset:
    """The data set from its file under cache; decode() makes that file once, one process at a time.

    decode may add class_names or parts; num_classes None takes as many as there are.
    """
    text = json.dumps({"layout": LAYOUT, **settings}, sort_keys=True)
    path = cache / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
    if not os.path.exists(path):  # a finished file needs no lock and no permission to write
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock")
            lock.acquire()
        try:
            if not os.path.exists(path):
                with reading(name):
                    train, test, *details = decode()
                _write(path, train, test, text, details[0] if details else {})
        finally:
            lock.release()
    return _read(name, path, num_classes)


def in_memory(name: str, train: Examples, test: Examples, num_classes: int) -> Dataset:
    """The data set of tensors that need no file."""
    return Dataset(name, train, test, num_classes, checksum(_tensors(train, test)))


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, kinds, shapes and bytes, in the order of KEYS."""
    digest = hashlib.sha256()
    for key in KEYS:
        digest.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)};".encode())
        digest.update(tensors[key].numpy().data)
    return digest.hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what could not be written, and which settings move it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"cannot write {path} ({reason(error)}). Set data.root=<folder> and data.cache=<folder>, or for both "
            f"data_root=<folder> or the environment variable CL_BENCH_DATA, to a folder with room that you may write."
        ) from None


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Say in one line what of the user's files could not be read."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"data={name} cannot be read ({reason(error)}). Check data.root.") from None


def reason(error: Exception) -> str:
    """The error in at most 200 characters (a line on a terminal can still be read)."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _tensors(train: Examples, test: Examples) -> dict[str, Tensor]:
    parts = (train.raw, train.y, test.raw, test.y)
    return {key: part.contiguous() for key, part in zip(KEYS, parts, strict=True)}


def _write(path: Path, train: Examples, test: Examples, settings: str, details: Details) -> None:
    tensors = _tensors(train, test)
    metadata = {"checksum": checksum(tensors), "settings": settings, "details": json.dumps(details)}
    partial = path.with_suffix(".partial")
    with writing(path):
        try:
            save_file(tensors, partial, metadata=metadata)
            partial.chmod(0o644)  # safetensors makes it 0600, but a cache may be shared
            partial.rename(path)  # a kill leaves no file or a whole one, never half of one
        finally:
            if os.path.exists(partial):
                partial.unlink()


def _read(name: str, path: Path, num_classes: int | None) -> Dataset:
    remedy = "Delete it, and the next run makes it anew."
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in KEYS}
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} is truncated or no safetensors file ({reason(error)}). {remedy}") from None
    written = metadata.get("checksum", "")
    if checksum(tensors) != written:
        raise ConfigError(f"{path} does not match its checksum: it was damaged. {remedy}")
    train = Examples(tensors["train.raw"], tensors["train.y"])
    test = Examples(tensors["test.raw"], tensors["test.y"])
    found = 1 + max((int(part.y.max()) for part in (train, test) if len(part)), default=-1)
    if num_classes is not None and found != num_classes:
        raise ConfigError(f"data.num_classes={num_classes}, but {name} has {found}. Set data.num_classes={found}.")
    details = {key: tuple(value) for key, value in json.loads(metadata.get("details", "{}")).items()}
    return Dataset(name, train, test, found, written, **details)


def expanded(text: str) -> Path:
    """A folder as a config names it."""
    return Path(text).expanduser()
