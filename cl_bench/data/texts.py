"""Where text comes from, one class a kind: the user's files, Python's own library, or Hugging Face's hub."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, ExistingPath, Share
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples
from cl_bench.data import hub_texts, python_texts
from cl_bench.data.resident import Dataset, Details, load, reading, writing
from cl_bench.data.tokens import BYTES, LEAST, as_bpe, as_bytes, blocks, learn_bpe, read_bpe, sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Named = Sequence[tuple[str, str]]  # (name, text) of files or documents


class TextData:
    """What all share: texts, held-out ones among them, become blocks [N, length + 1] of `vocabulary` numbers; labels are all 0.

    bpe: learned from the training part, or read from the file `tokenizer`, which several data sets may share.
    """

    text: ClassVar[bool] = True

    def __init__(
        self,
        *,
        name: str,
        root: ExistingPath | None,
        cache: str,
        tokens: Literal["bytes", "bpe"],
        vocabulary: Count | None,
        tokenizer: str | None,
        length: Count,
        test_blocks: Count | None,
        test_fraction: Share,
        split_seed: int,
    ):
        self.name, self.root, self.cache = name, None if root is None else Path(root).expanduser(), Path(cache).expanduser()
        self.tokens, self.length, self.test_blocks = tokens, length, test_blocks
        self.test_fraction, self.seed = test_fraction, split_seed
        self.file = None if tokenizer is None else Path(tokenizer).expanduser()
        least = BYTES if tokens == "bytes" else LEAST
        self.vocabulary = least if vocabulary is None and tokens == "bytes" else vocabulary
        if self.vocabulary is None or self.vocabulary < least or (tokens == "bytes" and (self.vocabulary > least or tokenizer)):
            allowed = f"null: a byte has {least} values, and needs no tokenizer" if tokens == "bytes" else f"{least} or more, such as 1024"
            given = f"data.vocabulary={vocabulary}, data.tokenizer={tokenizer}" if tokenizer else f"data.vocabulary={vocabulary}"
            raise ConfigError(f"{given} is not allowed with data.tokens={tokens}; give {allowed}")

    def __call__(self) -> Dataset:
        told = {"tokens": self.tokens, "vocabulary": self.vocabulary, "length": self.length, "test_blocks": self.test_blocks}
        split = {"test_fraction": self.test_fraction, "split_seed": self.seed}
        with reading(self.name):
            given = {} if self.file is None else {"tokenizer": hashlib.sha256(self.file.read_bytes()).hexdigest()}
            settings = {"source": type(self).__name__, **self.fingerprint(), **told, **split, **given}
        assert self.vocabulary is not None
        return replace(load(self.name, settings, self.cache, self._decode, None), num_classes=self.vocabulary)

    def fingerprint(self) -> dict[str, object]:
        """Changes when the texts do."""
        raise NotImplementedError

    def texts(self) -> tuple[Named, Named | None]:
        """Training and test texts; None leaves the split to us."""
        raise NotImplementedError

    def _decode(self) -> tuple[Examples, Examples, Details]:
        train, test = self.texts()
        parts = hold_out(train, self.test_fraction, self.seed) if test is None else ([t for _, t in train], [t for _, t in test])
        tokenizer = self._tokenizer(parts[0]) if self.tokens == "bpe" else None
        found = []
        for part, what in zip(parts, ("training", "test"), strict=True):
            numbers = as_bytes(part) if tokenizer is None else as_bpe(part, tokenizer)
            raw = blocks(numbers, self.length, f"{what} text of data={self.name}")
            if what == "test" and self.test_blocks is not None and self.test_blocks < len(raw):
                raw = raw[torch.arange(self.test_blocks) * len(raw) // self.test_blocks]  # spread evenly
            found.append(Examples(raw, torch.zeros(len(raw), dtype=torch.int64)))
        return found[0], found[1], {} if tokenizer is None else {"tokenizer": [sha256(tokenizer)]}

    def bpe(self) -> Path:
        """The tokenizer's file: the user's, or what was learned here."""
        if self.file is not None:
            return self.file
        [sha] = self().tokenizer
        if not (path := self._learned(sha)).exists():
            raise ConfigError(f"{path} is gone; delete {self.name}-*.safetensors beside it, and the next run makes both anew")
        return path

    def _learned(self, sha: str) -> Path:
        return self.cache / f"{self.name}-{sha[:12]}.tokenizer.json"

    def _tokenizer(self, texts: Sequence[str]) -> Tokenizer:
        if self.file is not None:
            tokenizer = read_bpe(self.file)
        else:
            assert self.vocabulary is not None
            tokenizer = learn_bpe(texts, self.vocabulary)
            with writing(path := self._learned(sha256(tokenizer))):
                path.write_text(tokenizer.to_str())
        if (size := tokenizer.get_vocab_size()) != self.vocabulary:
            raise ConfigError(
                f"data.vocabulary={self.vocabulary}, but the tokenizer of data={self.name} has {size} tokens; set data.vocabulary={size}"
            )
        return tokenizer


class Text(TextData):
    """The user's own: a file, a folder of files at any depth, or one with train/ and test/; what is no UTF-8 is left out."""

    @property
    def place(self) -> Path:
        if self.root is None:
            raise ConfigError("data=text: data.root is not set; set data.root=<a file or folder of text>")
        return self.root

    def fingerprint(self) -> dict[str, object]:
        digest = hashlib.sha256()
        for path in self._files(self.place):
            stat = path.stat()
            digest.update(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns};".encode())
        return {"files": digest.hexdigest()}

    def texts(self) -> tuple[Named, Named | None]:
        parted = all((self.place / part).is_dir() for part in ("train", "test"))
        places = [self.place / part for part in ("train", "test")] if parted else [self.place]
        found = [[(str(path), text) for path in self._files(place) if (text := utf8(path))] for place in places]
        empty = [str(place) for place, texts in zip(places, found, strict=True) if not texts]
        if empty:
            raise ConfigError(
                f"data.root: {empty[0]} holds no text (files in UTF-8, not empty, not hidden); give a file or folder that does"
            )
        return found[0], found[1] if parted else None

    def _files(self, place: Path) -> list[Path]:
        if place.is_file():
            return [place]
        files = []
        for folder, below, names in os.walk(place):
            below[:] = [n for n in below if not n.startswith(".") and Path(folder, n).resolve() != self.cache.resolve()]
            files += [Path(folder, n) for n in names if not n.startswith(".")]
        return sorted(files)


class PythonSource(TextData):
    """Code of Python's standard library, without docstrings: another version of Python is another text."""

    def fingerprint(self) -> dict[str, object]:
        return {"python": platform.python_version(), "library": python_texts.fingerprint(python_texts.stdlib())}

    def texts(self) -> tuple[Named, Named | None]:
        return python_texts.source(), None


class PythonDocs(PythonSource):
    """English of Python's standard library: its docstrings and the topics of its help."""

    def texts(self) -> tuple[Named, Named | None]:
        return python_texts.docs(), None


class PythonPackages(TextData):
    """Python files of installed packages as they stand, docstrings and all: another version of one is another text."""

    def __init__(self, *, packages: list[str], **shared: Any):
        super().__init__(**shared)
        self.packages = packages

    def fingerprint(self) -> dict[str, object]:
        return {"files": python_texts.fingerprint(python_texts.packages(self.packages))}

    def texts(self) -> tuple[Named, Named | None]:
        return python_texts.read(python_texts.packages(self.packages)), None


class Hub(TextData):
    """A text data set of Hugging Face's hub, by the names of `datasets.load_dataset`; root: a folder of save_to_disk that has it.

    rows: the first so many of each split, streamed, so that the rest is not downloaded; None takes all.
    """

    def __init__(self, *, path: str, config: str | None, column: str, train: str, test: str | None, rows: Count | None, **shared: Any):
        super().__init__(**shared)
        self.path, self.config, self.column, self.train, self.test, self.rows = path, config, column, train, test, rows

    def fingerprint(self) -> dict[str, object]:
        place = None if self.root is None else str(self.root.resolve())
        return {"path": self.path, "config": self.config, "train": self.train, "test": self.test, "rows": self.rows, "root": place}

    def texts(self) -> tuple[Named, Named | None]:
        return self._split(self.train), None if self.test is None else self._split(self.test)

    def _split(self, split: str) -> Named:
        texts = hub_texts.read(self.name, self.root, (self.path, self.config), split, self.column, self.rows)
        return [(f"{split} {number}", text) for number, text in enumerate(texts) if text.strip()]


def share_bpe(sources: Sequence[object]) -> None:
    """Domains in a row speak one BPE: of the first, where they are given none."""
    first, *rest = sources
    lacking = [source for source in rest if isinstance(source, TextData) and source.tokens == "bpe" and source.file is None]
    if lacking and isinstance(first, TextData) and first.tokens == "bpe":
        file = first.bpe()
        for source in lacking:
            source.file = file


def hold_out(texts: Named, share: float, seed: int) -> tuple[list[str], list[str]]:
    """Whole texts, in a seeded order, are tested as long as they fit into the share; a lone text is cut, its end is tested."""
    if len(texts) == 1:
        ((_, text),) = texts
        at = round(len(text) * (1 - share))
        return [text[:at]], [text[at:]]
    order = torch.randperm(len(texts), generator=generator(seed, "test texts")).tolist()
    room = share * sum(len(text) for _, text in texts)
    tested: set[int] = set()
    for number in order:
        if len(texts[number][1]) <= room:
            tested.add(number)
            room -= len(texts[number][1])
    if not tested:  # every text is larger than the share
        tested.add(min(range(len(texts)), key=lambda n: len(texts[n][1])))
    train, test = ([text for n, (_, text) in enumerate(texts) if (n in tested) == kept] for kept in (False, True))
    return train, test


def utf8(path: Path) -> str:
    """Empty where the file is no text."""
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text.strip() and text
