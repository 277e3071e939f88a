"""Text domains in a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Fraction
from cl_bench.core.types import Stream
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import make_stream


class Text:
    """One task a domain, all in the same tokens; a class is a token of the vocabulary."""

    text: ClassVar[bool] = True

    def __init__(self, *, datasets: list[str], order_seed: int, valid_fraction: Fraction):
        self.datasets, self.order_seed, self.valid_fraction = datasets, order_seed, valid_fraction

    def __call__(self, datasets: Mapping[str, Dataset]) -> Stream:
        first, *rest = datasets.values()
        for other in rest:
            if first.tokenizer != other.tokenizer or first.num_classes != other.num_classes:
                raise ConfigError(
                    f"{first.name} and {other.name} have tokens of their own; give all the same tokenizer.json, "
                    f"or none (data.tokenizer=null: one for all is learned from {first.name}), or data.tokens=bytes"
                )
            if first.train.raw.shape[1:] != other.train.raw.shape[1:]:
                raise ConfigError(f"{first.name} and {other.name} have blocks of different length; give them the same length")
        tokens = tuple(range(first.num_classes))
        tasks = [(name, d.train, d.test, tokens) for name, d in datasets.items()]
        return make_stream(tasks, first.num_classes, self.valid_fraction, self.order_seed)
