"""Published photographs that come without a split of their own, and those that the user sorts into folders."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Share
from cl_bench.core.types import Examples
from cl_bench.data import downloads, folders
from cl_bench.data.resident import Dataset, Details, load, reading
from cl_bench.data.splits import fraction, stratified


class Unsplit:
    """By the name of the torchvision class; a seeded share of each class is the test."""

    def __init__(
        self,
        *,
        name: str,
        root: str,
        cache: str,
        num_classes: int,
        kind: Literal["EuroSAT", "SUN397"],
        size: Count,
        test_fraction: Share,
        split_seed: int,
    ):
        self.name, self.root, self.cache = name, Path(root).expanduser(), Path(cache).expanduser()
        self.num_classes, self.kind, self.size = num_classes, kind, size
        self.test_fraction, self.seed = test_fraction, split_seed

    def __call__(self) -> Dataset:
        split = {"test_fraction": self.test_fraction, "split_seed": self.seed}
        return load(self.name, {"source": self.kind, "size": self.size, **split}, self.cache, self._decode, self.num_classes)

    def _decode(self) -> tuple[Examples, Examples, Details]:
        (whole,), names = downloads.pictures(self.name, self.kind, self.root, [["all"]], self.size)
        return *stratified(whole, fraction(self.test_fraction), self.seed), {"class_names": names}


class Sorted:
    """Pictures that the user has put into root/<name>/train/<class> and test/<class>."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, size: Count, published: str):
        self.name, self.root, self.cache = name, Path(root).expanduser(), Path(cache).expanduser()
        self.num_classes, self.size, self.published = num_classes, size, published

    def __call__(self) -> Dataset:
        place = self.root / self.name
        if not ((place / "train").is_dir() and (place / "test").is_dir()):
            raise ConfigError(
                f"data={self.name} is not here: looked for the folders {place}/train and {place}/test. Fetch {self.published} and sort its "
                f"pictures into <class>/ in both, or set data.root=<the parent of {self.name}/>."
            )
        with reading(self.name):
            layout = folders.layout(place, self.cache)
            settings = {"source": "sorted", "pictures": layout.fingerprint(), "size": self.size}
        return load(self.name, settings, self.cache, lambda: self._decode(layout), self.num_classes)

    def _decode(self, layout: folders.Layout) -> tuple[Examples, Examples, Details]:
        assert layout.test is not None
        return folders.decode(layout.train, self.size), folders.decode(layout.test, self.size), {"class_names": list(layout.classes)}
