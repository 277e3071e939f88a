"""Greedy sampler and dumb learner: a balanced memory, and a network trained on nothing else."""

from __future__ import annotations

import copy
import random
from collections import defaultdict
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.seeds import fold, generator
from cl_bench.core.types import Examples, Experience, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.memory import one_of_each


class GDumb(Strategy):
    """GDumb (Prabhu, Torr, Dokania, ECCV 2020): experience t becomes the memory's content after task t, learned from the initial weights.

    Labels that return (permuted, rotated) stay with the first inputs they came with: a class at its share takes nothing more.
    Under `own` the loss is over all classes seen, for remembered examples come with the new experience.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    def __init__(self, *, memory_size: Count):
        self.memory_size = memory_size

    def arrange(self, stream: Stream, seed: int) -> Stream:
        one_of_each("GDumb", self.memory_size, stream)
        whole = Examples.concatenate([e.train for e in stream.experiences])
        contents = greedy(stream, self.memory_size, seed)
        experiences = [
            replace(e, train=whole.take(kept), classes=stream.seen(e.index)) for e, kept in zip(stream.experiences, contents, strict=True)
        ]
        return replace(stream, experiences=tuple(experiences))

    def prepare(self, learner: Learner, stream: Stream) -> None:
        learner.batch_norm = "train"  # statistics start anew with the weights
        self.initial = copy.deepcopy(learner.network.state_dict())  # a restart makes the same: no state

    def before_task(self, learner: Learner, task: Experience) -> None:
        learner.network.load_state_dict(self.initial)
        learner.new_optimizer()  # whatever train.renew_optimizer says: it starts from scratch


def greedy(stream: Stream, size: int, seed: int) -> list[Tensor]:
    """Algorithm 1 of the paper: after each experience, the places kept among all examples of the stream.

    A class below its share of size / (classes met) takes an example; a full memory gives up one of its largest class.
    """
    kept: dict[int, list[int]] = defaultdict(list)
    chance, held, start, contents = random.Random(fold(seed, "greedy")), 0, 0, []
    for e in stream.experiences:
        classes = e.train.y.tolist()
        for n in torch.randperm(len(classes), generator=generator(seed, "order", e.index, 0)).tolist():  # as the loop would meet them
            mine = kept[classes[n]]
            if len(mine) * len(kept) >= size:
                continue
            if held == size:
                largest = max(kept.values(), key=len)
                largest.pop(chance.randrange(len(largest)))
            else:
                held += 1
            mine.append(start + n)
        start += len(classes)
        contents.append(torch.tensor(sorted(n for places in kept.values() for n in places)))
    return contents
