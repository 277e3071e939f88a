"""Which characters of matplotlib's fonts are classes of a corpus without a download, and how each face draws them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.seeds import fold
from cl_bench.data import characters

RECIPE = 1  # of drawings and pictures; another number makes every cached file anew
SIDE, SOURCE, PAD = 32, 64, 2  # of a picture; of the drawing it is warped from, and its margin
EM, BASELINE, LARGEST = 44, 43, 60  # in the drawing; what is larger is drawn smaller
COMPARED = (
    "DejaVuSans",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralItalic",
)  # a bold face tells no more
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Choice:
    """Which characters are classes, in which faces."""

    classes: int | str
    exclude: tuple[str, ...]
    min_faces: int
    test_faces: tuple[str, ...]
    same: float
    alike: float
    seed: int


Drawings = dict[str, dict[str, Array]]  # character -> face -> uint8 [SOURCE, SOURCE]


def fonts() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def versions() -> dict[str, str | int]:
    """All that could change a byte and is no setting. numpy and torch only add and multiply here, and do that alike everywhere."""
    from PIL import features

    digest = hashlib.sha256()
    for face in characters.FACES:
        digest.update((fonts() / f"{face}.ttf").read_bytes())
    return {
        "recipe": RECIPE,
        "fonts": digest.hexdigest(),
        "matplotlib": version("matplotlib"),
        "pillow": version("pillow"),
        "freetype": str(features.version("freetype2")),
        "unicode": unicodedata.unidata_version,
    }


def choose(choice: Choice) -> Drawings:
    """The classes by code point, with their drawings: no two look the same, none looks like an excluded one."""
    have = characters.available(fonts())
    one = choice.classes if isinstance(choice.classes, str) else "all"
    characters.check_words("data.classes", [one], have)
    characters.check_words("data.exclude", choice.exclude, have)
    excluded = set().union(*(characters.named(word, have) for word in choice.exclude))
    banned = excluded | characters.contaminated(have, excluded, "digits" in choice.exclude)
    pool = draw({c: have[c] for c in sorted(characters.named(one, have) - banned)})
    pool = {c: faces for c, faces in pool.items() if _enough(faces, choice)}
    prints = fingerprints(pool)
    if excluded:
        keep = ~alike(prints, fingerprints(draw({c: have[c] for c in sorted(excluded)})), choice.alike).any(1)
        pool = {c: faces for c, faces, kept in zip(pool, pool.values(), keep.tolist()) if kept}
        prints = prints[keep]
    kept = [c for c, first in zip(pool, _firsts(alike(prints, prints, choice.same)).tolist()) if first]
    if isinstance(choice.classes, int):
        if choice.classes > len(kept):
            raise ConfigError(f"data.classes={choice.classes}, but only {len(kept)} characters remain. Give {len(kept)} or less, or all.")
        kept = nested(kept, choice.classes, choice.seed)
    if len(kept) < 2:
        raise ConfigError(
            f"data.classes={choice.classes} with data.exclude={list(choice.exclude)} and data.min_faces={choice.min_faces} "
            f"leaves {len(kept)} characters; at least 2 are needed. Choose more, exclude less."
        )
    return {c: pool[c] for c in kept}


def nested(names: Sequence[str], count: int, seed: int) -> list[str]:
    """count of them in their order; a smaller count takes some of the same."""
    return sorted(sorted(names, key=lambda c: fold(seed, "glyph class", ord(c)))[:count])


def _firsts(pairs: Tensor) -> Tensor:
    """bool [N]: of those that look the same, the first."""
    first = torch.ones(len(pairs), dtype=torch.bool)
    for k in range(len(pairs)):
        if first[k]:
            first[k + 1 :] &= ~pairs[k, k + 1 :]
    return first


def _enough(faces: Mapping[str, Array], choice: Choice) -> bool:
    training = faces.keys() - set(choice.test_faces)
    return len(training) >= choice.min_faces and (not choice.test_faces or len(training) < len(faces))


def draw(faces: Mapping[str, Sequence[str]]) -> Drawings:
    """Each character in each face: on one base line, centred sideways, at one size unless it is too large. Empty ones are left out."""
    from PIL import ImageFont

    found: Drawings = {c: {} for c in faces}
    for face in characters.FACES:
        file, basic = str(fonts() / f"{face}.ttf"), ImageFont.Layout.BASIC
        sizes = {EM: ImageFont.truetype(file, EM, layout_engine=basic)}
        for character in (c for c, names in faces.items() if face in names):
            mask, offset = sizes[EM].getmask2(character, mode="L", anchor="ls")
            if max(mask.size) > LARGEST:
                size = EM * LARGEST // max(mask.size)
                if size not in sizes:
                    sizes[size] = ImageFont.truetype(file, size, layout_engine=basic)
                mask, offset = sizes[size].getmask2(character, mode="L", anchor="ls")
            w, h = mask.size
            ink = np.frombuffer(bytes(mask), np.uint8).reshape(h, w)
            if not ink.any():
                continue
            top, left = min(max(BASELINE + int(offset[1]), 0), SOURCE - h), (SOURCE - w) // 2
            found[character][face] = drawing = np.zeros((SOURCE, SOURCE), np.uint8)
            drawing[top : top + h, left : left + w] = ink
    return {c: drawings for c, drawings in found.items() if drawings}


def fingerprints(drawings: Drawings) -> Tensor:
    """[characters, faces, 256]: each drawing at 16 x 16 in 16 levels; zero where a face is missing."""
    small = np.zeros((len(drawings), len(COMPARED), 256), np.float32)
    for row, faces in enumerate(drawings.values()):
        for column, face in enumerate(COMPARED):
            if face in faces:
                small[row, column] = (faces[face].reshape(16, 4, 16, 4).sum((1, 3), dtype=np.int64) // 256).reshape(-1)
    return torch.from_numpy(small)


def alike(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """bool [A, B]: cosine >= threshold in half or more of the faces that both have. Sums of small whole numbers are exact in any order."""
    found = torch.zeros(len(a), len(b), dtype=torch.bool)
    power_a, power_b = (x.square().sum(2) for x in (a, b))  # [A, faces], [B, faces]
    columns = b.permute(1, 2, 0).contiguous()
    for rows in torch.arange(len(a)).split(512):
        same, both = (torch.zeros(len(rows), len(b), dtype=torch.int8) for _ in range(2))
        for face in range(len(COMPARED)):
            norms = power_a[rows, face].double()[:, None] * power_b[:, face].double()
            same += ((a[rows, face] @ columns[face]).double().square() >= threshold**2 * norms) & (norms > 0)
            both += norms > 0
        found[rows] = (2 * same >= both) & (both > 0)
    return found
