"""run() over experiences, learn() over steps: THE training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_bench import checkpoint
from cl_bench.backbones import Backbones
from cl_bench.core.errors import DivergenceError, Interrupted, RunError
from cl_bench.core.learner import Learner
from cl_bench.core.seeds import generator
from cl_bench.core.stop import Stop
from cl_bench.core.types import Examples, Experience, Stream
from cl_bench.folder import RunFolder
from cl_bench.match import Match
from cl_bench.probes.moment import MomentProbe
from cl_bench.probes.readout import Probe, observe
from cl_bench.progress import Progress
from cl_bench.strategies.base import Strategy

CHECK_EVERY = 50  # steps between two looks at the losses: each look waits for the device


@dataclass(frozen=True)
class Plan:
    """How long and in what portions an experience is learned; epochs or steps, never both."""

    batch_size: int
    epochs: int | None
    steps: int | None
    renew_optimizer: bool

    def portions(self, count: int) -> list[int]:
        """Batch sizes of an epoch; a last batch of one joins its neighbour, for batch norm cannot take it."""
        full, rest = divmod(count, self.batch_size)
        sizes = [self.batch_size] * full + [rest] * (rest > 0)
        return sizes if rest != 1 or not full else [*sizes[:-2], sizes[-2] + 1]

    def total(self, experience: Experience) -> int:
        """Steps of an experience."""
        if self.steps is not None:
            return self.steps * experience.merges
        return (self.epochs or 0) * len(self.portions(len(experience.train)))


@dataclass(frozen=True)
class Looks:
    """Which held-out examples are looked at, when and by whom."""

    held_out: Mapping[str, Examples]
    probes: Mapping[str, Probe | MomentProbe]
    future: bool
    before: bool
    batch_size: int
    match: Match
    within: Collection[int]  # steps of an experience after which is looked too, by probes of one test

    def observe(self, learner: Learner, stream: Stream, after: int, folder: RunFolder, step: int | None = None) -> None:
        """Rows at the end of an experience, or after a step of it."""
        probes = {name: probe for name, probe in self.probes.items() if step is None or not isinstance(probe, MomentProbe)}
        how: dict[str, Any] = {"future": self.future, "batch_size": self.batch_size, "folder": folder.path}
        rows = observe(learner, stream, self.held_out, after, probes, **how)
        folder.append(rows if step is None else ({**row, "step": step} for row in rows))


class Saver:
    """Where the run stands on disk: at task ends, every save_seconds, and when asked to stop."""

    def __init__(self, folder: RunFolder, identity: str, save_seconds: float, stop: Stop, backbones: Backbones):
        self.folder, self.identity, self.save_seconds, self.stop, self.backbones = folder, identity, save_seconds, stop, backbones
        self.last = time.monotonic()

    @property
    def due(self) -> bool:
        return bool(self.stop()) or time.monotonic() - self.last >= self.save_seconds

    def save(self, learner: Learner, strategy: Strategy, progress: Progress, place: tuple[int, int]) -> None:
        costs = progress.costs(learner.device)
        state = {"identity": self.identity, "place": place, "rows": len(self.folder.read_rows()), "costs": costs}
        checkpoint.save({**state, "learner": learner.state_dict(), "strategy": strategy.state_dict()}, self.folder.checkpoint)
        self.last = time.monotonic()
        if self.stop():
            raise Interrupted(self.stop())

    def restore(self, learner: Learner, strategy: Strategy, progress: Progress) -> tuple[int, int]:
        """(experiences done, steps done in the next); (0, 0) starts anew and drops rows nobody vouches for."""
        if not self.folder.checkpoint.exists():
            self.folder.cut(0)
            return 0, 0
        state: dict[str, Any] = checkpoint.load(self.folder.checkpoint, learner.device)
        if state["identity"] != self.identity:
            raise RunError(f"{self.folder.path} was begun on other data or start weights; delete it, or give this run a tag=<name>")
        self.folder.cut(state["rows"])
        learner.load_state_dict(state["learner"])
        strategy.load_state_dict(state["strategy"])
        progress.resume(state["costs"])
        return tuple(state["place"])


def run(learner: Learner, strategy: Strategy, stream: Stream, plan: Plan, looks: Looks, saver: Saver, progress: Progress) -> None:
    """Every experience once: learn, consolidate, look, save."""

    def look(after: int) -> None:
        with progress.phase("evaluate"):
            looks.observe(learner, stream, after, saver.folder)
            saver.folder.append(looks.match.rows(learner, stream, after))
        for probe in looks.probes.values():
            for line in probe.said if isinstance(probe, MomentProbe) else ():
                progress.say(line)

    done, step = saver.restore(learner, strategy, progress)
    saver.backbones.resume(done, step)
    if (done, step) == (0, 0) and looks.before:
        saver.folder.cut(0)
        look(-1)
    for number, experience in enumerate(stream.experiences[done:], start=done):
        begin = step if number == done else 0
        learner.train_mode(first_task=number == 0)
        if begin == 0 and experience.announced:
            learner.reseed("before task", experience.index)
            strategy.before_task(learner, experience)
            if number and plan.renew_optimizer:
                learner.new_optimizer()
        if strategy.learns(experience):
            with progress.phase("train"), saver.stop.between_steps():
                learn(learner, strategy, stream, number, plan, begin, looks, saver, progress)
        if saver.due:  # what follows a task can take long and is not saved half-way
            saver.save(learner, strategy, progress, (number, plan.total(experience)))
        if experience.announced or not strategy.learns(experience):  # a closed form asks for examples, not for where they end
            learner.reseed("after task", experience.index)
            with progress.phase("after_task"):
                strategy.after_task(learner, experience)
            for line in strategy.said:
                progress.say(line)
            saver.folder.leave(strategy.files())
        if experience.looked:
            look(experience.index)
            saver.save(learner, strategy, progress, (number + 1, 0))


def learn(
    learner: Learner,
    strategy: Strategy,
    stream: Stream,
    number: int,
    plan: Plan,
    step: int,
    looks: Looks,
    saver: Saver,
    progress: Progress,
) -> None:
    """The steps of the stream's experience of this number, from `step` on."""
    experience = stream.experiences[number]
    data, task = experience.train.to(learner.device), experience.index
    portions = plan.portions(len(data))
    total = plan.total(experience)
    pending: list[Tensor] = []
    warned = False
    progress.task(total, step)
    while step < total:
        epoch, first = divmod(step, len(portions))
        order = torch.randperm(len(data), generator=generator(learner.seed, "order", task, epoch)).to(learner.device)
        progress.epoch(f"{experience.name} epoch {epoch + 1}/{math.ceil(total / len(portions))}")
        for index in order.split(portions)[first : first + total - step]:
            learner.number, learner.step, learner.steps = number, step, total
            if looks.match.due(learner, experience, step):
                total = step
                break
            learner.reseed("step", task, step)
            batch = learner.batch(data.raw.index_select(0, index), data.y.index_select(0, index), task)  # [] takes eight times as long
            output = strategy.loss(learner, batch)
            learner.optimizer.zero_grad()
            learner.fabric.backward(output.loss)
            strategy.after_backward(learner)
            learner.update()
            strategy.after_step(learner, batch, output)
            pending.append(output.loss.detach())
            step += 1
            keep = number == 0 and step in saver.backbones.steps
            within = step in looks.within and step < total and experience.looked
            if len(pending) == CHECK_EVERY or progress.stale or saver.due or keep or within:
                _check(pending, experience, epoch, step, progress)
                if not warned and (warning := learner.objective.warning(output)):
                    warned = True  # once a task
                    progress.say(f"{experience.name}, step {step}: {warning}")
                if keep:
                    saver.backbones.save(learner, step)
                if within:
                    looks.observe(learner, stream, task, saver.folder, step)
                if saver.due:
                    saver.save(learner, strategy, progress, (number, step))
        _check(pending, experience, epoch, step, progress)
        progress.end_epoch()
    if line := looks.match.told(learner, experience, step):
        progress.say(line)


def _check(pending: list[Tensor], experience: Experience, epoch: int, step: int, progress: Progress) -> None:
    """Hand the losses since the last look to the progress line; stop at the first that is not finite."""
    if not pending:
        return
    values = torch.stack(pending).double().cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        at = step - len(values) + int(bad[0])
        raise DivergenceError(
            f"loss is {float(values[bad[0]])} in {experience.name}, epoch {epoch + 1}, step {at + 1}; "
            "lower train.optimizer.lr or the strategy's strength, or set train.clip"
        )
    progress.losses(values.tolist())
    pending.clear()
