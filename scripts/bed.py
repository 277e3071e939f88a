"""A backbone on two tasks of synthetic bytes: our loop under a strategy on the second, and its bare twin."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import bare
import bare_methods
import torch
import yaml
from bare import Case
from bare_twins import twin
from lightning_fabric import Fabric
from torch import Tensor, nn

from cl_bench.backbones import Backbones
from cl_bench.build import build
from cl_bench.core.learner import Learner, Network
from cl_bench.core.schedule import Constant, FirstThen, Schedule, WarmupCosine
from cl_bench.core.seeds import generator, reseed_global
from cl_bench.core.stop import Stop
from cl_bench.core.types import Examples, Experience, Stream
from cl_bench.data.views import Plain as PlainView
from cl_bench.data.views import Resized
from cl_bench.folder import RunFolder
from cl_bench.loop import Looks, Plan, Saver, learn
from cl_bench.match import Match
from cl_bench.objectives.supervised import Supervised
from cl_bench.overrides import CONF
from cl_bench.progress import Progress
from cl_bench.strategies.agem import AGEM
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.er_ace import ERACE
from cl_bench.strategies.packnet import PackNet
from cl_bench.strategies.rehearsal import Rehearsal
from cl_bench.strategies.si import SI

OUT = Path("outputs/bench")
BATCH, CLASSES = bare_methods.BATCH, 10
OLD = CLASSES // 2  # classes of the first task
SGD = functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
ADAMW = functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)


@dataclass(frozen=True)
class Recipe:
    """How steps are taken; clip: largest norm of the gradient."""

    make_optimizer: Callable[[Any], torch.optim.Optimizer]
    schedule: Schedule
    clip: float | None
    loss_over: Literal["all", "own"]


def scale_study() -> Recipe:
    """conf/train/scale.yaml, under conf/experiment/scale/base.yaml's loss."""
    train = yaml.safe_load((CONF / "train" / "scale.yaml").read_text())
    optimizer, schedule = (build(train[node], ["cl_bench.", "torch."]) for node in ("optimizer", "schedule"))
    return Recipe(optimizer, schedule, train["clip"], "own")


PLAIN = Recipe(SGD, Constant(), None, "all")
PRETRAINING = Recipe(ADAMW, WarmupCosine(warmup=200, final=0.0), 1.0, "all")


class Silent(Progress):
    def say(self, line: str) -> None:
        self.note(line)


class Bed:
    """size: pixels a side to which images are enlarged in the step, on both sides."""

    def __init__(
        self,
        backbone: Callable[[], tuple[nn.Module, int]],
        shape: tuple[int, int, int],
        count: int,
        recipe: Recipe = PLAIN,
        size: int | None = None,
    ):
        plain = PlainView(mean=0.0, std=1.0)
        self.backbone, self.recipe, self.size = backbone, recipe, size
        self.view = plain if size is None else Resized(plain, None, size)
        reseed_global(0)
        raw, y = torch.randint(0, 256, (count, *shape), dtype=torch.uint8), torch.randint(0, OLD, (count,))
        own = (tuple(range(OLD)), tuple(range(OLD, CLASSES)))
        self.tasks = [Experience(t, f"task{t}", Examples(raw, y + t * OLD), own[t]) for t in range(2)]
        self.stream = Stream(self.tasks, {}, CLASSES)
        self.x = plain(raw, None)
        nowhere = OUT / "never-written"
        self.looks = Looks({}, {}, False, False, 0, Match(None, 0), ())
        self.saver = Saver(RunFolder(nowhere), "", math.inf, Stop(), Backbones(nowhere, False, {}, 0, 0))

    def learner(self) -> Learner:
        reseed_global(0)
        body, dim = self.backbone()
        objective = Supervised(loss_over=self.recipe.loss_over)
        learner = Learner(
            network=Network(body, objective.head(dim, CLASSES)),
            objective=objective,
            view=self.view,
            make_optimizer=self.recipe.make_optimizer,
            backbone_rate=1.0,
            schedule=self.recipe.schedule,
            clip=self.recipe.clip,
            batch_norm="train",
            fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"),
            seed=0,
        )
        learner.masks = objective.masks(self.stream)
        return learner

    def training(self, name: str, strategy: Strategy, steps: int, pairs: int, target: float, number: int = 1) -> Case:
        """The second task (number 1) under strategy, the first being remembered but not trained on; or the first."""
        task = self.tasks[number]
        learner = self.learner()
        strategy.prepare(learner, self.stream)
        if number:
            self._first_task(learner, strategy)
        learner.train_mode(first_task=number == 0)
        strategy.before_task(learner, task)
        with torch.no_grad():  # a little off the centre, so that a penalty pulls
            for p in learner.parameters:
                p.add_(torch.randn_like(p), alpha=1e-3)
        learner.new_optimizer()
        copied = copy.deepcopy(learner.network)
        weights = [*copied.parameters(), *copied.buffers()]
        network, method = twin(strategy, copied, self.view, CLASSES, OLD)
        optimizer = self.recipe.make_optimizer(network.parameters())
        if self.recipe.clip is not None:
            method = self._recipe(optimizer, self.recipe.clip, steps, task)

        def ours(steps: int = steps) -> None:
            plan = Plan(BATCH, None, steps, False)
            learn(learner, strategy, self.stream, number, plan, 0, self.looks, self.saver, Silent(None, False))

        def theirs(steps: int = steps) -> None:
            order = generator(0, "order", number, 0)
            bare.train(network, optimizer, self.x, task.train.y, steps, BATCH, order, method)

        memory: bare_methods.Memory | None = getattr(method, "memory", None)
        if memory is not None:
            memory.rng = generator(0, "step", 1, 0)  # the draws of our first step
        ours(1)
        theirs(1)
        if memory is not None:
            memory.rng = None
        _equal(name, [*learner.network.parameters(), *learner.network.buffers()], weights)
        if self.recipe.clip is not None:  # a step at the start of a warm-up hardly moves weights
            _equal(name, moments(learner.optimizer), moments(optimizer))
        if isinstance(strategy, SI) and isinstance(method, bare_methods.SI):
            _equal(name, [strategy.path], [torch.cat([path.view(-1) for path in method.path])])
        return Case(name, steps, pairs, target, ours, theirs)

    def _recipe(self, optimizer: torch.optim.Optimizer, clip: float, steps: int, task: Experience) -> bare.Clipped:
        """Of a bare loop; it schedules nothing where our rate stays as it is."""
        schedule, number = self.recipe.schedule, task.index
        constant = isinstance(schedule.later if number and isinstance(schedule, FirstThen) else schedule, Constant)
        factor = None if constant else functools.partial(schedule, steps=steps, number=number)
        if self.recipe.loss_over == "all":
            return bare.Clipped(optimizer, clip, factor)
        return bare.FineTuning(optimizer, clip, factor, task.classes[0], task.classes[-1] + 1, self.size)

    def _first_task(self, learner: Learner, strategy: Strategy) -> None:
        """Whatever the method has of it."""
        first = self.tasks[0]
        learner.reseed("first task")
        strategy.before_task(learner, first)
        if isinstance(strategy, Rehearsal) and not isinstance(strategy, AGEM):  # A-GEM fills its memory after the task
            outputs = torch.randn(len(first.train), CLASSES) if strategy.keeps_outputs else None
            strategy.memory.add(first.train.raw, first.train.y, 0, learner.rng, outputs)
        if isinstance(strategy, SI):
            strategy.path.uniform_(0, 1e-3)
        if isinstance(strategy, ERACE):
            strategy.seen[:OLD] = True
        if isinstance(strategy, PackNet):
            strategy.packed.prune(0.5, 0)
        strategy.after_task(learner, first)


def moments(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What an optimizer keeps of the gradients."""
    return [value for state in optimizer.state.values() for value in state.values()]


def _equal(name: str, ours: list[Tensor], theirs: list[Tensor]) -> None:
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not torch.allclose(a, b, rtol=1e-4, atol=1e-6):
            gap = float((a - b).detach().abs().max())
            raise SystemExit(f"error: {name}: the bare loop does other arithmetic: tensor {number} differs by up to {gap}")
