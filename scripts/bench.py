"""Our loop beside a bare PyTorch loop: `python scripts/bench.py [--quick] [--only WORDS]`.

Both run in this process on one thread, in turn (ours, bare, ours, bare, ...); a ratio is of two neighbours
and the table shows the median of the ratios, so that a busy machine slows both. Before the clock runs,
one step of each from equal weights must leave equal weights: the two do the same work.
Prints a table, writes outputs/bench/<name>.json; about six minutes, with --quick one and a half.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import bare
import torch
from bare import Case, measure
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cl_bench.core.learner import Learner, Network
from cl_bench.core.schedule import Constant
from cl_bench.core.seeds import generator, reseed_global
from cl_bench.core.stop import Stop
from cl_bench.core.types import Examples, Experience, Stream
from cl_bench.data.views import Plain
from cl_bench.folder import RunFolder
from cl_bench.loop import Plan, Saver, learn
from cl_bench.models.mlp import mlp
from cl_bench.models.timm_models import resnet
from cl_bench.objectives.supervised import Supervised
from cl_bench.probes.readout import read
from cl_bench.progress import Progress
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.ewc import EWC
from cl_bench.strategies.fisher import fisher
from cl_bench.strategies.replay import ER
from cl_bench.strategies.simple import Sequential

OUT = Path("outputs/bench")
BATCH, CLASSES, MEMORY, STRENGTH = 32, 10, 200, 1.0
SGD = functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9)


class Silent(Progress):
    def say(self, line: str) -> None:
        self.note(line)


class Bed:
    """A backbone on synthetic bytes, and its twin for the bare loops."""

    def __init__(self, backbone: Callable[[], tuple[nn.Module, int]], shape: tuple[int, int, int], count: int):
        reseed_global(0)
        body, dim = backbone()
        objective, view = Supervised(loss_over="all"), Plain(mean=0.0, std=1.0)
        self.learner = Learner(
            network=Network(body, objective.head(dim, CLASSES)),
            objective=objective,
            view=view,
            make_optimizer=SGD,
            backbone_rate=1.0,
            schedule=Constant(),
            clip=None,
            batch_norm="train",
            fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"),
            seed=0,
        )
        examples = Examples(torch.randint(0, 256, (count, *shape), dtype=torch.uint8), torch.randint(0, CLASSES, (count,)))
        self.tasks = [Experience(t, f"task{t}", examples, tuple(range(CLASSES))) for t in range(2)]
        self.stream = Stream(self.tasks, {}, CLASSES)
        self.x, self.y = view(examples.raw, None), examples.y
        self.twin = copy.deepcopy(self.learner.network)
        self.optimizer = SGD(self.twin.parameters())
        self.saver = Saver(RunFolder(OUT / "never-written"), "", math.inf, Stop())

    def training(self, name: str, strategy: Strategy, steps: int, pairs: int, target: float) -> Case:
        """The second task under strategy, the first being remembered but not trained on."""
        self.learner.train_mode(first_task=True)
        strategy.prepare(self.learner, self.stream)
        memory = penalty = None
        if isinstance(strategy, EWC):
            strategy.after_task(self.learner, self.tasks[0])
            weights, centres = ([part.clone() for part in parts] for parts in (strategy.penalty.weights, strategy.penalty.centres))
            penalty = bare.Penalty(strategy.strength, weights, centres)
        if isinstance(strategy, ER):
            for x, y in zip(self.tasks[0].train.raw.split(MEMORY), self.y.split(MEMORY), strict=True):
                strategy.memory.add(x, y, 0, self.learner.rng)
            memory = bare.Memory(MEMORY, self.x, self.y, 0)
            memory.x.copy_(self.learner.view(strategy.memory.raw, None))
            memory.y.copy_(strategy.memory.y)

        def ours(steps: int = steps) -> None:
            plan = Plan(BATCH, None, steps, False)
            learn(self.learner, strategy, self.tasks[1], plan, 0, 1, self.saver, Silent(None, False))

        def theirs(steps: int = steps, rng: torch.Generator | None = None) -> None:
            order = generator(0, "order", 1, 0)
            bare.train(self.twin, self.optimizer, self.x, self.y, steps, BATCH, order, memory=memory, penalty=penalty, rng=rng)

        self._level(strategy)
        ours(1)
        theirs(1, generator(0, "step", 1, 0))
        _equal(name, self.learner.network.state_dict(), self.twin.state_dict())
        return Case(name, steps, pairs, target, ours, theirs)

    def _level(self, strategy: Strategy) -> None:
        """Equal weights at both ends, a little off the centre so that a penalty pulls."""
        with torch.no_grad():
            for p in self.learner.parameters if isinstance(strategy, EWC) else []:
                p.add_(torch.randn_like(p), alpha=1e-3)
        self.learner.new_optimizer()
        self.optimizer = SGD(self.twin.parameters())
        self.twin.load_state_dict(self.learner.network.state_dict())


def _equal(name: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for key, value in ours.items():
        if not torch.allclose(value, theirs[key], rtol=1e-4, atol=1e-6):
            gap = float((value - theirs[key]).abs().max())
            raise SystemExit(f"error: {name}: the bare loop does other arithmetic: {key} differs by up to {gap}")


def cases(quick: bool, only: str) -> Iterator[Callable[[], Iterator[Case]]]:
    """Groups that share a bed; a bed is made when its turn comes."""

    def flat() -> Iterator[Case]:
        bed = Bed(lambda: mlp(input_shape=(1, 28, 28), hidden=[400, 400], batch_norm=False, pretrained=False), (1, 28, 28), 10_000)
        steps, pairs = 100, 15 if quick else 60
        yield from trainings("mlp", bed, steps, pairs, 1.10)
        samples = 500 if quick else 2000
        order = torch.arange(samples)
        yield Case(
            "mlp_fisher_exact",
            samples,
            3 if quick else 5,
            1.0,
            lambda: fisher("exact", bed.learner, bed.tasks[0], order, 100),
            lambda: bare.fisher_one_class(bed.twin, bed.x[:samples], 0),
        )
        yield evaluation("mlp", bed, 10_000, 10 if quick else 40)

    def images() -> Iterator[Case]:
        shape = (3, 32, 32)
        bed = Bed(lambda: resnet(input_shape=shape, name="resnet18", small_stem=True, pretrained=False), shape, 1000)
        yield from trainings("resnet18", bed, 1 if quick else 2, 5 if quick else 14, 1.03)
        yield evaluation("resnet18", bed, 128 if quick else 256, 3 if quick else 8)

    def trainings(name: str, bed: Bed, steps: int, pairs: int, target: float) -> Iterator[Case]:
        strategies: dict[str, Callable[[], Strategy]] = {
            "sequential": Sequential,
            "er": lambda: ER(memory_size=MEMORY, batch_size=BATCH, strength=1.0),
            "ewc": lambda: EWC(strength=STRENGTH, estimator="exact", samples=32, batch_size=32, mode="separate", decay=1.0),
        }
        for title, make in strategies.items():
            if only in f"{name}_{title}":
                yield bed.training(f"{name}_{title}", make(), steps, pairs, target)

    def evaluation(name: str, bed: Bed, count: int, pairs: int) -> Case:
        data, x, batch_size = bed.tasks[0].train, bed.x[:count], 256
        data = Examples(data.raw[:count], data.y[:count])
        bed.twin.eval()
        parts = (bed.twin.get_submodule("backbone"), bed.twin.get_submodule("head"))
        ours, theirs = (lambda: read(bed.learner, data, batch_size)), (lambda: bare.evaluate(*parts, x, batch_size))
        return Case(f"{name}_read", math.ceil(count / batch_size), pairs, 1.10, ours, theirs)

    yield from (flat, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter pairs")
    parser.add_argument("--only", default="", help="cases whose name holds this, as in mlp_er")
    given = parser.parse_args()
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    table = Table("name", "bare ms/step", "ours ms/step", "ratio [min, max]", "target", "")
    for group in cases(given.quick, given.only):
        for case in group():
            if given.only not in case.name:
                continue
            found = measure(case)
            (OUT / f"{case.name}.json").write_text(json.dumps(found, indent=1) + "\n")
            spread = f"{found['ratio']:.3f} [{found['ratio_min']:.3f}, {found['ratio_max']:.3f}]"
            verdict = "pass" if found["pass"] else "MISS"
            row = (case.name, f"{found['bare_ms']:.3f}", f"{found['ours_ms']:.3f}", spread, f"{case.target:.2f}", verdict)
            print(*row, flush=True)
            table.add_row(*row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
