"""Pictures in class folders: which files, which labels, and their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.types import Examples

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
LETTERS = "ABCDEFGHIJ"  # of notMNIST
Labelled = list[tuple[Path, int]]


@dataclass(frozen=True)
class Layout:
    """The pictures of a root; test=None leaves the split to us."""

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled | None

    def fingerprint(self) -> str:
        """Changes when a picture is added, removed or edited, so that no old cache is taken for the new pictures."""
        digest = hashlib.sha256()
        for path, label in [*self.train, *(self.test or [])]:
            stat = path.stat()
            digest.update(f"{path.resolve()}:{label}:{stat.st_size}:{stat.st_mtime_ns};".encode())
        return digest.hexdigest()


def layout(root: Path, cache: Path) -> Layout:
    """root/train/<class> and root/test/<class>, or root/<class>; the cache may lie inside root."""
    if not root.is_dir():
        raise ConfigError(f"data.root={root} is no folder. Set data.root=<the folder that has your class folders>.")
    if not ((root / "train").is_dir() and (root / "test").is_dir()):
        classes = _classes(root, root, cache)
        return Layout(tuple(classes), _labelled(root, classes), None)
    classes, tested = (_classes(root, root / part, cache) for part in ("train", "test"))
    if classes != tested:
        odd = ", ".join(sorted(set(classes) ^ set(tested)))
        raise ConfigError(f"{root}: train and test must have the same class folders, but only one of them has {odd}.")
    return Layout(tuple(classes), _labelled(root / "train", classes), _labelled(root / "test", classes))


def tiny_imagenet(root: Path, num_classes: int) -> tuple[Labelled, Labelled]:
    """train/<wnid>/images/* and val/images/* with val_annotations.txt; labels follow the sorted wnids."""
    wnids = [path.name for path in _folders(root / "train")]
    if len(wnids) != num_classes:
        raise ConfigError(f"{root}/train has {len(wnids)} class folders, not {num_classes}. Unpack the zip again.")
    train = [(path, k) for k, wnid in enumerate(wnids) for path in _pictures(root / "train" / wnid / "images")]
    label = {wnid: k for k, wnid in enumerate(wnids)}
    lines = [line.split("\t") for line in (root / "val" / "val_annotations.txt").read_text().splitlines()]
    unknown = [line[0] for line in lines if len(line) < 2 or line[1] not in label]
    if unknown:
        raise ConfigError(f"{root}/val/val_annotations.txt: {unknown[0]} has no known class. Unpack the zip again.")
    return train, [(root / "val" / "images" / line[0], label[line[1]]) for line in lines]


def notmnist(root: Path) -> Labelled:
    """A/*.png .. J/*.png, but for the pictures that are empty in the published archive."""
    if not all((root / letter).is_dir() for letter in LETTERS):
        raise ConfigError(
            f"data=notmnist is not here: looked for the folders {root}/A .. J. Fetch notMNIST_small.tar.gz "
            f"(http://yaroslavvb.com/upload/notMNIST/) and unpack it in {root.parent}, or set data.root=<its parent>."
        )
    pictures = [(path, label) for label, letter in enumerate(LETTERS) for path in _pictures(root / letter)]
    return [(path, label) for path, label in pictures if path.stat().st_size]


def core50(root: Path, session: int, per_class: int) -> Labelled:
    """s<session>/o1/*.png .. o50/*.png; per_class objects in a row are of one class."""
    missing = [k for k in range(1, 51) if not (root / f"s{session}" / f"o{k}").is_dir()]
    if missing:
        raise ConfigError(
            f"data=core50 is not here: looked for the folder {root}/s{session}/o{missing[0]}. Fetch core50_128x128.zip "
            f"(https://vlomonaco.github.io/core50) and unpack it in {root.parent}, or set data.root=<its parent>."
        )
    return [(path, (k - 1) // per_class) for k in range(1, 51) for path in _pictures(root / f"s{session}" / f"o{k}")]


def decode(labelled: Sequence[tuple[Path, int]], size: int) -> Examples:
    """RGB, shorter side resized to size, centre crop: raw [N, 3, size, size]."""
    raw = torch.empty(len(labelled), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:  # PIL decodes outside of Python's lock
        for row, picture in enumerate(pool.map(lambda item: _decode(item[0], size), labelled)):
            raw[row] = picture
    return Examples(raw, torch.tensor([label for _, label in labelled], dtype=torch.int64))


def _decode(path: Path, size: int) -> Tensor:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return square(image.convert("RGB"), size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{path} is no readable picture ({type(error).__name__}). Repair or remove it.") from None


def square(image: Image.Image, size: int) -> Tensor:
    """uint8 [3, size, size] of an RGB picture: shorter side resized, centre crop."""
    from PIL import Image, ImageOps

    return torch.from_numpy(np.array(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))).permute(2, 0, 1)


def _classes(root: Path, parent: Path, cache: Path) -> list[str]:
    found = [path for path in _folders(parent) if path.resolve() != cache.resolve()]
    empty = [path.name for path in found if not _pictures(path)]
    if not found or empty:
        what = f"the class folder {empty[0]} has no pictures" if empty else "there are no class folders"
        raise ConfigError(f"data.root={root}: in {parent} {what}. Put pictures in <class>/, or in train/<class>/ and test/<class>/.")
    return [path.name for path in found]


def _labelled(parent: Path, classes: Sequence[str]) -> Labelled:
    return [(path, label) for label, name in enumerate(classes) for path in _pictures(parent / name)]


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
