"""Our side of the comparison with other libraries: one stream, one network, and our own loop over them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cl_bench.backbones import Backbones
from cl_bench.core.learner import Network
from cl_bench.core.seeds import generator
from cl_bench.core.stop import Stop
from cl_bench.core.types import Examples, Experience, Stream
from cl_bench.folder import RunFolder
from cl_bench.loop import Looks, Plan, Saver, run
from cl_bench.match import Match
from cl_bench.models.mlp import mlp
from cl_bench.progress import Progress
from cl_bench.strategies.base import Strategy

SEED, RATE, STEPS, BATCH = 5, 0.1, 50, 8  # SEED of make_learner
CLASSES = ((0, 1), (2, 3), (4, 5))


def make_stream(shared: bool = False) -> Stream:
    """Three tasks of 4 x 4 pictures round a mean of each class; one pass over a task is STEPS steps.

    shared: the tasks name their two classes alike, so that each helps or spoils the next a little.
    """
    rng = torch.Generator().manual_seed(11)
    means = torch.randint(40, 216, (6, 1, 4, 4), generator=rng)
    experiences = []
    for t in range(3):
        y = torch.tensor(CLASSES[t])[torch.randint(0, 2, (STEPS * BATCH,), generator=rng)]
        raw = means[y] + torch.randint(-40, 41, (len(y), 1, 4, 4), generator=rng)
        examples = Examples(raw.to(torch.uint8), y % 2 if shared else y)
        experiences.append(Experience(t, f"task{t}", examples, (0, 1) if shared else CLASSES[t]))
    return Stream(tuple(experiences), {}, 6)


def make_network() -> Network:
    torch.manual_seed(0)
    backbone, dim = mlp(input_shape=(1, 4, 4), hidden=[16], batch_norm=False, pretrained=False)
    return Network(backbone, nn.Linear(dim, 6)).double()


def orders(task: int) -> tuple[Tensor, Tensor]:
    """In which order our loop trains on a task's examples, and in which our estimators look at them."""
    count = STEPS * BATCH
    return tuple(torch.randperm(count, generator=generator(SEED, *place)) for place in (("order", task, 0), ("after task", task)))


class Losses(Progress):
    """Of every step."""

    def __init__(self) -> None:
        super().__init__(log=None, live=False)
        self.all: list[float] = []

    def losses(self, values: list[float]) -> None:
        super().losses(values)
        self.all += values


def our_losses(learner: Any, strategy: Strategy, stream: Stream, folder: Path) -> np.ndarray:
    """[steps of the stream], through the loop itself; learner: in its folder `folder`."""
    learner.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=0.9)
    learner.new_optimizer()
    plan = Plan(batch_size=BATCH, epochs=1, steps=None, renew_optimizer=False)
    looks = Looks(held_out={}, probes={}, future=False, before=False, batch_size=BATCH, match=Match(None, BATCH), within=())
    saver = Saver(RunFolder(folder), "", math.inf, Stop(), Backbones(folder, False, {}, STEPS, STEPS))
    progress = Losses()
    strategy.prepare(learner, stream)
    run(learner, strategy, stream, plan, looks, saver, progress)
    return np.array(progress.all)
