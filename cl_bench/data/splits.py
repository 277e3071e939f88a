"""Hold out test examples of every class, seeded."""

from __future__ import annotations

from collections.abc import Callable

import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples


def stratified(data: Examples, held: Callable[[int], int], seed: int) -> tuple[Examples, Examples]:
    """Train and test; of a class with n examples held(n) are tested. Both keep the order of data."""
    is_test = torch.zeros(len(data), dtype=torch.bool)
    for label in data.y.unique().tolist():
        members = (data.y == label).nonzero().flatten()
        count = held(len(members))
        if not 0 < count < len(members):
            raise ConfigError(
                f"class {label} has {len(members)} examples, and {count} of them would be tested: "
                f"each class needs at least one for training and one for testing. Change the split or add some."
            )
        order = torch.randperm(len(members), generator=generator(seed, "test split", label))
        is_test[members[order[:count]]] = True
    return data.take((~is_test).nonzero().flatten()), data.take(is_test.nonzero().flatten())


def fraction(share: float) -> Callable[[int], int]:
    """held() for a share of each class, at least one example."""
    if not 0 < share < 1:
        raise ConfigError(f"data.test_fraction={share} is not between 0 and 1. Try data.test_fraction=0.2.")
    return lambda n: max(1, round(n * share))
