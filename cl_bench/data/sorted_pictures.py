"""Images in class folders, one class a collection: published archives unpacked, and the user's own."""

from __future__ import annotations

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, FolderPath, Share
from cl_bench.core.types import Examples
from cl_bench.data import downloads, folders
from cl_bench.data.resident import Dataset, Details, Pair, expanded, load, reading
from cl_bench.data.splits import fraction, stratified


class TinyImagenet:
    """200 classes of 64x64 in the folders of Stanford's zip; its labelled validation images are the test."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, size: int, url: str, md5: str):
        self.name, self.root, self.cache, self.num_classes = name, expanded(root), expanded(cache), num_classes
        self.size, self.url, self.md5 = size, url, md5

    def __call__(self) -> Dataset:
        settings = {"source": "tiny-imagenet", "size": self.size}
        return load(self.name, settings, self.cache, self._decode, self.num_classes)

    def _decode(self) -> Pair:
        unpacked = downloads.tiny_imagenet(self.name, self.root, self.url, self.md5)
        train, test = folders.tiny_imagenet(unpacked, self.num_classes)
        return folders.decode(train, self.size), folders.decode(test, self.size)


class NotMnist:
    """Letters A to J in many fonts, 28x28: the archive notMNIST_small, which has no split of its own."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, test_fraction: Share, split_seed: int):
        self.name, self.root, self.cache, self.num_classes = name, expanded(root), expanded(cache), num_classes
        self.split = {"test_fraction": test_fraction, "split_seed": split_seed}
        self.held, self.seed = fraction(test_fraction), split_seed

    def __call__(self) -> Dataset:
        return load(self.name, {"source": "notmnist", **self.split}, self.cache, self._decode, self.num_classes)

    def _decode(self) -> Pair:
        grey = folders.decode(folders.notmnist(self.root / "notMNIST_small"), 28)
        return stratified(Examples(grey.raw[:, :1], grey.y), self.held, self.seed)


class Core50:
    """CORe50 (1705.03550): 50 objects, or their 10 kinds, filmed in 11 sessions; root/core50_128x128/s<session>/o<object>/*.png."""

    def __init__(
        self, *, name: str, root: str, cache: str, num_classes: int, size: int, train_sessions: list[int], test_sessions: list[int]
    ):
        if num_classes not in (10, 50):
            raise ConfigError(f"data.num_classes={num_classes} is not allowed: CORe50 has 50 objects of 10 kinds; give 50 or 10.")
        self.name, self.root, self.cache, self.num_classes = name, expanded(root), expanded(cache), num_classes
        self.size, self.train_sessions, self.test_sessions = size, train_sessions, test_sessions

    def __call__(self) -> Dataset:
        sessions = {"train": self.train_sessions, "test": self.test_sessions}
        settings = {"source": "core50", "classes": self.num_classes, "size": self.size, **sessions}
        return load(self.name, settings, self.cache, self._decode, self.num_classes)

    def _decode(self) -> tuple[Examples, Examples, Details]:
        place = self.root / "core50_128x128"
        per_class = 50 // self.num_classes
        train, test = ([folders.core50(place, s, per_class) for s in sessions] for sessions in (self.train_sessions, self.test_sessions))
        decoded = [folders.decode([item for session in part for item in session], self.size) for part in (train, test)]
        return decoded[0], decoded[1], {"parts": [len(session) for session in train]}


class Folder:
    """The user's own pictures, <class>/* or train/<class>/* and test/<class>/*, in data.root."""

    def __init__(
        self,
        *,
        name: str,
        root: FolderPath,
        cache: str,
        num_classes: Count | None,
        size: Count,
        test_fraction: Share,
        split_seed: int,
    ):
        self.name, self.root, self.cache, self.num_classes = name, expanded(root), expanded(cache), num_classes
        self.size, self.seed, self.held = size, split_seed, fraction(test_fraction)
        self.settings = {"size": size, "test_fraction": test_fraction, "split_seed": split_seed}

    def __call__(self) -> Dataset:
        with reading(self.name):
            layout = folders.layout(self.root, self.cache)
            settings = {"source": "folder", "pictures": layout.fingerprint(), **self.settings}
        num_classes = len(layout.classes) if self.num_classes is None else self.num_classes
        return load(self.name, settings, self.cache, lambda: self._decode(layout), num_classes)

    def _decode(self, layout: folders.Layout) -> Pair:
        train = folders.decode(layout.train, self.size)
        if layout.test is not None:
            return train, folders.decode(layout.test, self.size)
        return stratified(train, self.held, self.seed)


class ImagenetR:
    """ImageNet-R (2006.16241): 30,000 renditions of 200 classes, root/imagenet-r/<wnid>/*; without a split, so it is ours."""

    def __init__(self, *, name: str, root: str, cache: str, num_classes: int, size: Count, test_fraction: Share, split_seed: int):
        self.name, self.root, self.cache, self.num_classes = name, expanded(root), expanded(cache), num_classes
        self.size, self.seed, self.held = size, split_seed, fraction(test_fraction)
        self.split = {"test_fraction": test_fraction, "split_seed": split_seed}

    def __call__(self) -> Dataset:
        place = self.root / "imagenet-r"
        if not place.is_dir():
            raise ConfigError(
                f"data={self.name} is not here: looked for the folder {place}. Fetch imagenet-r.tar "
                f"(https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar) and unpack it in {self.root}, or set data.root=<its parent>."
            )
        with reading(self.name):
            layout = folders.layout(place, self.cache)
            settings = {"source": "imagenet-r", "pictures": layout.fingerprint(), "size": self.size, **self.split}
        return load(self.name, settings, self.cache, lambda: self._decode(layout), self.num_classes)

    def _decode(self, layout: folders.Layout) -> Pair:
        return stratified(folders.decode(layout.train, self.size), self.held, self.seed)
