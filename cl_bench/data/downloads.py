"""Published data sets: where they may lie, how they are fetched, what to say when they are nowhere."""

from __future__ import annotations

import functools
import gzip
import socket
import ssl
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from cl_bench.core.errors import ConfigError
from cl_bench.core.types import Examples
from cl_bench.data import folders
from cl_bench.data.resident import reason, writing

TIMEOUT = 10  # seconds without an answer before we call it offline; torchvision would wait for ever
BROKEN = (
    *(RuntimeError, URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError),  # on the way
    *(EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error),  # in the archive
)
FOLDERS = {  # torchvision's names
    **{"OxfordIIITPet": "oxford-iiit-pet", "Flowers102": "flowers-102", "StanfordCars": "stanford_cars"},
    **{"DTD": "dtd", "GTSRB": "gtsrb", "STL10": "stl10_binary", "EuroSAT": "eurosat", "SUN397": "SUN397"},
}
IDX = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]


def fetch(name: str, root: Path, download: Callable[[], object], looked_for: str, package: str | None) -> None:
    """Run torchvision's download into root; offline, one line with the three ways to go on."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with writing(root):
            try:
                download()
            except BROKEN as error:
                # Debian calls the package of /usr/share/datasets/x dataset-x
                install = f"install Debian's package dataset-{Path(package).name}, or " if package else ""
                raise ConfigError(
                    f"data={name} is not here: looked for {looked_for}, and the download failed ({reason(error)}). "
                    f"Three ways to go on: (1) put these files there, or set data.root=<the folder that has them>; "
                    f"(2) {install}run once with network; (3) use data=digits or data=mnist5k, which need no network."
                ) from None
    finally:
        socket.setdefaulttimeout(before)


def idx(name: str, kind: str, root: Path, package: str | None) -> tuple[Examples, Examples]:
    """MNIST and its kin: four IDX files, plain or .gz."""
    places = [root / kind / "raw", root / name, *([Path(package)] if package else [])]
    if (found := _idx_files(places)) is None:
        from torchvision import datasets

        where = " or ".join(map(str, places))
        wanted = f"{', '.join(IDX)} (plain or .gz) in {where}"
        fetch(name, root, lambda: getattr(datasets, kind)(str(root), download=True), wanted, package)
        found = _idx_files(places)
        assert found is not None
    parts = []
    for images, labels in (found[:2], found[2:]):
        raw, y = read_idx(images, 3).unsqueeze(1), read_idx(labels, 1).long()
        if len(raw) != len(y):
            raise ConfigError(f"{images} has {len(raw)} images, but {labels} {len(y)} labels. Replace both.")
        parts.append(Examples(raw, y))
    return parts[0], parts[1]


def read_idx(path: Path, dimensions: int) -> Tensor:
    """uint8 of an IDX file: two zeros, kind 8, number of dimensions, big-endian sizes, bytes."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if data[:4] != bytes((0, 0, 8, dimensions)):
            raise ValueError(f"no IDX file of {dimensions}-dimensional uint8")
        shape = np.frombuffer(data, ">i4", count=dimensions, offset=4)
        return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy())
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read ({reason(error)}). Delete it or put a whole one there.") from None


def arrays(name: str, kind: str, root: Path) -> tuple[Examples, Examples]:
    """SVHN and CIFAR, which torchvision checks by md5 before it unpickles anything."""
    from torchvision import datasets

    maker = getattr(datasets, kind)
    splits = [{"split": "train"}, {"split": "test"}] if kind == "SVHN" else [{"train": True}, {"train": False}]

    def read(download: bool) -> list:
        return [maker(str(root), download=download, **split) for split in splits]

    try:
        sets = read(download=False)
    except RuntimeError:
        if kind == "SVHN":
            wanted = f"whole files {' and '.join(maker.split_list[s['split']][1] for s in splits)} in {root}"
        else:
            wanted = f"a whole folder {maker.base_folder} or file {maker.filename} in {root}"
        fetch(name, root, lambda: read(download=True), wanted, package=None)
        sets = read(download=False)
    train, test = (_examples(s.data, s.labels if kind == "SVHN" else s.targets, kind) for s in sets)
    return train, test


def pictures(name: str, kind: str, root: Path, parts: Sequence[Sequence[str]], size: int) -> tuple[list[Examples], list[str]]:
    """(parts of one or more of torchvision's splits each, decoded at one size; class names, where torchvision has them).

    Of Stanford Cars torchvision fetches nothing any more; what has no splits is one part, [[all]].
    """
    from torchvision import datasets

    def read(download: bool) -> list:
        shape = functools.partial(folders.square, size=size)
        maker = getattr(datasets, kind)
        which = [[{} if split == "all" else {"split": split} for split in part] for part in parts]
        return [ConcatDataset([maker(str(root), **s, transform=shape, download=download) for s in part]) for part in which]

    try:
        sets = read(download=False)
    except RuntimeError:
        if kind == "StanfordCars":
            raise ConfigError(
                f"data={name} is not here: looked for {root}/stanford_cars with devkit/, cars_train/, cars_test/ and "
                "cars_test_annos_withlabels.mat. Its host is gone: https://github.com/pytorch/vision/issues/7545 names copies; "
                "put one there, or set data.root=<the folder that has stanford_cars>."
            ) from None
        fetch(name, root, lambda: read(download=True), f"a whole folder {root}/{FOLDERS[kind]}", package=None)
        sets = read(download=False)
    names = getattr(sets[0].datasets[0], "classes", [])
    return [_decoded(part, size) for part in sets], [name[0] if isinstance(name, tuple) else name for name in names]


def _decoded(part: ConcatDataset, size: int) -> Examples:
    raw, y = torch.empty(len(part), 3, size, size, dtype=torch.uint8), torch.empty(len(part), dtype=torch.int64)
    with ThreadPoolExecutor() as pool:  # PIL decodes outside of Python's lock
        for row, (picture, label) in enumerate(pool.map(part.__getitem__, range(len(part)))):
            raw[row], y[row] = picture, label
    return Examples(raw, y)


def tiny_imagenet(name: str, root: Path, url: str, md5: str) -> Path:
    """The folder tiny-imagenet-200, unpacked from Stanford's zip if it is not there."""
    place = root / "tiny-imagenet-200"
    if (here := next((p for p in (place, root) if (p / "val" / "val_annotations.txt").is_file()), None)) is None:
        from torchvision.datasets.utils import download_and_extract_archive

        wanted = f"a folder {place} with train/ and val/, or the file {place}.zip"
        partial = root / "tiny-imagenet-200.partial"
        fetch(name, root, lambda: download_and_extract_archive(url, str(root), str(partial), md5=md5), wanted, None)
        with writing(root):
            (partial / place.name).rename(place)  # a kill leaves no folder or a whole one
            partial.rmdir()
    return here or place


def _examples(data: np.ndarray, labels: Sequence[int], kind: str) -> Examples:
    raw = torch.from_numpy(np.ascontiguousarray(data if kind == "SVHN" else data.transpose(0, 3, 1, 2)))
    return Examples(raw, torch.as_tensor(labels, dtype=torch.int64))


def _idx_files(places: Sequence[Path]) -> list[Path] | None:
    """The four files in the first place that has them all."""
    for place in places:
        found = [next((p for p in (place / n, place / f"{n}.gz") if p.is_file()), None) for n in IDX]
        whole = [path for path in found if path is not None]
        if len(whole) == len(IDX):
            return whole
    return None
