"""Writing systems one after the other: each script's letters are the classes of one task."""

from __future__ import annotations

from collections.abc import Callable

import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count
from cl_bench.core.types import Examples
from cl_bench.data.resident import Dataset, in_memory


class Scripts:
    """The first `per_script` classes of each script, in this order; glyphs: how they are drawn, all but their classes."""

    def __init__(
        self, *, name: str, scripts: list[str], per_script: Count, num_classes: Count, glyphs: Callable[..., Callable[[], Dataset]]
    ):
        if num_classes != len(scripts) * per_script:
            raise ConfigError(
                f"data.num_classes={num_classes} is not {len(scripts)} scripts x {per_script} classes; give {len(scripts) * per_script}"
            )
        self.name, self.scripts, self.per_script, self.glyphs = name, scripts, per_script, glyphs

    def __call__(self) -> Dataset:
        parts: dict[str, list[Examples]] = {"train": [], "test": []}
        names: list[str] = []
        for number, script in enumerate(self.scripts):
            found = self.glyphs(classes=script)()
            if found.num_classes < self.per_script:
                raise ConfigError(f"data.per_script={self.per_script}: {script} has {found.num_classes} characters; give that or less")
            for part, data in (("train", found.train), ("test", found.test)):
                kept = data.take((data.y < self.per_script).nonzero().flatten())
                parts[part].append(Examples(kept.raw, kept.y + number * self.per_script))
            names += found.class_names[: self.per_script]
        train, test = (Examples.concatenate(parts[part]) for part in ("train", "test"))
        whole = in_memory(self.name, train, test, len(names) or int(torch.cat([train.y, test.y]).max()) + 1)
        return Dataset(whole.name, train, test, whole.num_classes, whole.checksum, tuple(names))
