"""How much the representations of classes share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Stream
from cl_bench.probes.moment import PENULTIMATE, WHOLE, Moment, MomentProbe, Row
from cl_bench.probes.similarity import constant, overlaps


class Overlap(MomentProbe):
    """Trace overlap of class representations, after Ramasesh et al. (ICLR 2022), whose formula is not public.

    <C_i, C_j>_F / (|C_i|_F |C_j|_F), C_i = X_i^T X_i / n_i, mean over pairs of classes i != j within a test, and of two.
    X_i: penultimate features, less the mean of all class means (all_class_mean) or as they are (none).
    Beside each value, means over `draws`: _null of isotropic random features of the same n and width, for width alone
    lowers it; _shuffled of the same features under shuffled labels; _projected of the features in `width` random orthogonal
    directions, so that models of unlike widths have one null (narrower ones stay as they are).
    """

    def __init__(self, *, centring: Literal["all_class_mean", "none"], draws: Count, width: Count):
        self.centring, self.draws, self.width = centring, draws, width

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        counts = {(on, c): int((held_out[on].y == c).sum()) for on, test in stream.tests.items() for c in test.classes}
        if len({c for _, c in counts}) < 2:
            raise ConfigError("probe=overlap compares classes, and this stream has one; leave the probe out, or give more classes")
        few = [f"class {c} of {on} has {n}" for (on, c), n in counts.items() if n < 2]
        if few:
            more = f" and {len(few) - 3} more" if len(few) > 3 else ""
            raise ConfigError(
                f"probe=overlap needs 2 held-out examples of each class, and {', '.join(few[:3])}{more}; "
                "leave the probe out, or hold out more (the data's test part, or scenario.valid_fraction with look.part=valid)"
            )

    def __call__(self, moment: Moment) -> Iterator[Row]:
        rng = generator(moment.seed, "overlap", moment.after)
        found = [(held.on, c, held.features[PENULTIMATE][held.y == c].double()) for held in moment.held for c in held.classes]
        sets = [x for _, _, x in found]
        every, counts = torch.cat(sets), [len(x) for x in sets]
        tables: dict[str, list[Tensor]] = {"": [self.table(sets)], "_null": [], "_shuffled": [], "_projected": []}
        for _ in range(self.draws):
            random = torch.randn(every.shape, generator=rng, dtype=every.dtype).to(every.device)
            order = torch.randperm(len(every), generator=rng).to(every.device)
            tables["_null"].append(self.table(random.split(counts)))
            tables["_shuffled"].append(self.table(every[order].split(counts)))
            directions = torch.randn(every.shape[1], min(self.width, every.shape[1]), generator=rng, dtype=every.dtype)
            tables["_projected"].append(self.table((every @ torch.linalg.qr(directions).Q.to(every.device)).split(counts)))
        dead: dict[str, None] = {}  # an ordered set
        for on, metric, pairs in groups([on for on, _, _ in found], [c for _, c, _ in found]):
            for suffix, drawn in tables.items():
                row = moment.row(on, metric + suffix, torch.stack(drawn).mean(0).cpu()[pairs].mean())
                dead |= {on: None} if math.isnan(row["value"]) else {}
                yield row
        words = f"overlap on {', '.join(dead)} is undefined (nan): the penultimate features of a class are the same for every example"
        self.said = [words] if dead else []

    def table(self, sets: Sequence[Tensor]) -> Tensor:
        """Overlap of each class with each, [K, K]."""
        if self.centring == "all_class_mean":
            if constant(torch.cat(list(sets))):
                return sets[0].new_full((len(sets), len(sets)), math.nan)
            mean = torch.stack([x.mean(0) for x in sets]).mean(0)
            sets = [x - mean for x in sets]
        return overlaps(sets)


def groups(tests: Sequence[str], classes: Sequence[int]) -> Iterator[tuple[str, str, Tensor]]:
    """(on, metric, bool [K, K]): over which pairs of (test, class) each mean is; nothing where there is no pair."""
    names = list(dict.fromkeys(tests))
    test, label = torch.tensor([names.index(on) for on in tests]), torch.tensor(classes)
    same, differ = test[:, None] == test, label[:, None] != label
    found = [(on, "overlap_within", same & differ & (test == i)) for i, on in enumerate(names)]
    found += [(WHOLE, "overlap_within", same & differ), (WHOLE, "overlap_across", ~same & differ)]
    yield from ((on, metric, pairs) for on, metric, pairs in found if pairs.any())
