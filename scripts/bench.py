"""Our loop beside a bare PyTorch loop: `python scripts/bench.py [--quick] [--only WORDS]`.

Both run in this process on one thread, in turn (ours, bare, ours, bare, ...); a ratio is of two neighbours
and the table shows the median of the ratios, so that a busy machine slows both. Before the clock runs,
one step of each from equal weights must leave equal weights: the two do the same work.
Joint, cumulative and GDumb take sequential's step (GDumb after the task), ewc_online EWC's, er_ewc ER's and EWC's;
nmc and ranpac take none. vit_finetune* take the scale study's steps. What PackNet does once a task is not timed.
Prints a table, writes outputs/bench/<name>.json; about twenty minutes, with --quick six. `--only` takes words with commas between.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import bare
import bare_prompts
import torch
from bare import Case, measure
from bed import BATCH, OUT, PRETRAINING, Bed, scale_study
from rich.console import Console
from rich.table import Table
from torch import nn

from cl_bench.core.learner import Learner
from cl_bench.core.types import Stream
from cl_bench.models.mlp import mlp
from cl_bench.models.timm_models import resnet, vit
from cl_bench.probes.readout import read
from cl_bench.strategies.agem import AGEM
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.der import DER
from cl_bench.strategies.derpp import DERpp
from cl_bench.strategies.er_ace import ERACE
from cl_bench.strategies.ewc import EWC
from cl_bench.strategies.fisher import fisher
from cl_bench.strategies.icarl import ICaRL
from cl_bench.strategies.l2p import L2P
from cl_bench.strategies.lwf import LwF
from cl_bench.strategies.mas import MAS
from cl_bench.strategies.packnet import PackNet
from cl_bench.strategies.pnn import PNN
from cl_bench.strategies.replay import ER
from cl_bench.strategies.si import SI
from cl_bench.strategies.simple import Sequential

REPLAY = {"memory": "reservoir", "memory_size": 200, "batch_size": BATCH}
IMPORTANCE = {"strength": 1.0, "samples": 32, "batch_size": BATCH, "decay": 1.0, "estimator": "exact"}
STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "sequential": Sequential,
    "ewc": lambda: EWC(mode="separate", **IMPORTANCE),
    "mas": lambda: MAS(mode="average", **IMPORTANCE),
    "si": lambda: SI(strength=1.0, damping=1e-3, gradient="task", cut="sum", cap=None),
    "lwf": lambda: LwF(strength=1.0, temperature=2.0),
    "er": lambda: ER(strength=1.0, **REPLAY),
    "er_balanced": lambda: ER(strength=1.0, **{**REPLAY, "memory": "balanced"}),
    "der": lambda: DER(alpha=0.3, light=None, **REPLAY),
    "derpp": lambda: DERpp(alpha=0.1, beta=0.5, light=None, **REPLAY),
    "er_ace": lambda: ERACE(**REPLAY),
    "agem": lambda: AGEM(**REPLAY),
    "icarl": lambda: ICaRL(memory_size=200, batch_size=BATCH),
    "pnn": lambda: PNN(scale=0.01),
    "packnet": lambda: PackNet(prune=0.5, train_share=2.0),  # not within the steps
}


L2P_SETTINGS: dict[str, Any] = {
    **{"size": 10, "length": 5, "top": 5, "pull": 0.5, "init": [-1.0, 1.0], "head": "normal", "position": "none"},
    **{"selection": "per_sample", "vote": None, "frequency_penalty": False, "prompt_mask": False, "copy_prompts": False},
    **{"class_mask": True, "rehearsal": None, "batch_size": 64},
}


class Asking(L2P):
    """L2P that asks each image's query anew, as it does where views are drawn."""

    def prepare(self, learner: Learner, stream: Stream) -> None:
        super().prepare(learner, stream)
        learner.view = learner.network.get_submodule("backbone").query.plain


def cases(quick: bool, only: str) -> Iterator[Callable[[], Iterator[Case]]]:
    """Groups that share a bed; a bed is made when its turn comes."""

    def flat() -> Iterator[Case]:
        bed = Bed(lambda: mlp(input_shape=(1, 28, 28), hidden=[400, 400], batch_norm=False, pretrained=False), (1, 28, 28), 10_000)
        yield from trainings("mlp", bed, 100, 15 if quick else 60, 1.10)
        samples = 500 if quick else 2000
        order, learner = torch.arange(samples), bed.learner()
        yield Case(
            "mlp_fisher_exact",
            samples,
            3 if quick else 5,
            1.0,
            lambda: fisher("exact", learner, bed.tasks[0], order, 100),
            lambda: bare.fisher_one_class(learner.network, bed.x[:samples], 0),
        )
        yield evaluation("mlp", bed, 10_000, 10 if quick else 40)

    def images() -> Iterator[Case]:
        shape = (3, 32, 32)
        bed = Bed(lambda: resnet(input_shape=shape, name="resnet18", small_stem=True, pretrained=False), shape, 1000)
        yield from trainings("resnet18", bed, 1 if quick else 2, 5 if quick else 14, 1.03)
        yield evaluation("resnet18", bed, 128 if quick else 256, 3 if quick else 8)

    def prompts() -> Iterator[Case]:
        bed = Bed(small_vit, (3, 32, 32), 1000)
        if wanted("vit_l2p", only):
            yield bed.training("vit_l2p", Asking(**L2P_SETTINGS), 2, 7 if quick else 20, 1.05)
        if wanted("vit_l2p_read", only):  # queries kept, over two passes for each image
            learner, strategy = bed.learner(), L2P(**L2P_SETTINGS)
            strategy.prepare(learner, bed.stream)
            data, plain = bed.tasks[0].train.take(torch.arange(128)), copy.deepcopy(learner.network).eval()
            x, prompted = bed.x[:128], bare_prompts.Prompted(plain.backbone.vit, plain.backbone.pool, nn.Identity(), strategy.top)
            ours, theirs = (lambda: read(learner, data, 64)), (lambda: bare.evaluate(prompted, plain.head, x, 64))
            torch.testing.assert_close(ours()[1], theirs()[1], rtol=1e-4, atol=1e-5)
            yield Case("vit_l2p_read", 2, 7 if quick else 20, 0.60, ours, theirs)

    def scale() -> Iterator[Case]:
        for name, recipe, stored, number in (
            ("vit_pretrain", PRETRAINING, 32, 1),
            ("vit_finetune", scale_study(), 32, 1),  # a later task: constant rate
            ("vit_finetune_first", scale_study(), 32, 0),  # warm-up and cosine
            ("vit_finetune_resized", scale_study(), 16, 1),
        ):
            if wanted(name, only):
                bed = Bed(small_vit, (3, stored, stored), 1000, recipe, None if stored == 32 else 32)
                yield bed.training(name, Sequential(), 2, 7 if quick else 20, 1.03, number)

    def trainings(name: str, bed: Bed, steps: int, pairs: int, target: float) -> Iterator[Case]:
        for title, make in STRATEGIES.items():
            if wanted(f"{name}_{title}", only):  # before it is prepared, which takes seconds
                yield bed.training(f"{name}_{title}", make(), steps, pairs, target)

    def evaluation(name: str, bed: Bed, count: int, pairs: int) -> Case:
        learner, x, batch_size = bed.learner(), bed.x[:count], 256
        data, network = bed.tasks[0].train.take(torch.arange(count)), bed.learner().network.eval()
        parts = (network.get_submodule("backbone"), network.get_submodule("head"))
        ours, theirs = (lambda: read(learner, data, batch_size)), (lambda: bare.evaluate(*parts, x, batch_size))
        return Case(f"{name}_read", math.ceil(count / batch_size), pairs, 1.10, ours, theirs)

    yield from (flat, images, scale, prompts)


def small_vit() -> tuple[nn.Module, int]:
    sizes = {"patch_size": 4, "width": 96, "depth": 6, "heads": 3}
    return vit(input_shape=(3, 32, 32), name="vit_tiny_patch16_224", pretrained=False, **sizes)


def wanted(name: str, only: str) -> bool:
    return any(word in name for word in only.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter pairs")
    parser.add_argument("--only", default="", help="cases whose name holds one of these words, as in mlp_er,agem")
    given = parser.parse_args()
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    table = Table("name", "bare ms/step", "ours ms/step", "ratio [min, max]", "target", "")
    for group in cases(given.quick, given.only):
        for case in group():
            if not wanted(case.name, given.only):
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
