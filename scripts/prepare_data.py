"""Published archives of pictures, unpacked, into train/<class> and test/<class>, as data=cub200 and data=clipart read them.

    python scripts/prepare_data.py cub200 CUB_200_2011 ~/.cache/cl_bench/cub200
    python scripts/prepare_data.py clipart domainnet ~/.cache/cl_bench/clipart

Pictures are linked where both folders are on one disk, else copied.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

Placed = Iterator[tuple[str, str, Path]]  # part, class, picture


def cub200(source: Path) -> Placed:
    """images/<class>/*.jpg; images.txt and train_test_split.txt say which are for training."""
    names = _columns(source / "images.txt")
    for number, training in _columns(source / "train_test_split.txt").items():
        picture = source / "images" / names[number]
        yield "train" if training == "1" else "test", picture.parent.name, picture


def clipart(source: Path) -> Placed:
    """clipart/<class>/*.jpg; clipart_train.txt and clipart_test.txt list them."""
    for part in ("train", "test"):
        for name in _columns(source / f"clipart_{part}.txt"):
            picture = source / name
            yield part, picture.parent.name, picture


def _columns(file: Path) -> dict[str, str]:
    return dict(line.split() for line in file.read_text().splitlines() if line)


def place(placed: Placed, target: Path) -> dict[str, int]:
    """Pictures a part. A kill leaves no target or a whole one."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    counts = {"train": 0, "test": 0}
    for part, name, picture in placed:
        there = partial / part / name / picture.name
        there.parent.mkdir(parents=True, exist_ok=True)
        if os.stat(picture).st_dev == os.stat(partial).st_dev:
            os.link(picture, there)
        else:
            shutil.copyfile(picture, there)
        counts[part] += 1
    partial.rename(target)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("cub200", "clipart"))
    parser.add_argument("source", type=Path, help="the unpacked archive")
    parser.add_argument("target", type=Path, help="a folder that is not there yet")
    given = parser.parse_args()
    if given.target.exists():
        parser.error(f"{given.target} is there already; remove it, or name another")
    try:
        counts = place({"cub200": cub200, "clipart": clipart}[given.name](given.source), given.target)
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is missing; name the folder that the archive was unpacked in")
    print(f"{given.target}: {counts['train']} pictures to train on, {counts['test']} to test on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
