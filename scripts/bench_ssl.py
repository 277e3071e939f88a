"""Self-supervision's own costs: `python scripts/bench_ssl.py [--quick]`, one thread, about three minutes.

views: a batch of 256 at 32 x 32 through our views, over torchvision's transforms image by image in one worker (target 0.1).
step: SimSiam on ResNet-18, batch 256, views included, over the same step on ready views (target 1.10 on a CPU, 1.15 on a GPU).
Both sides in turn, processor time; the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision.transforms as T
from lightning_fabric import Fabric

from cl_bench.core.learner import Learner, Network
from cl_bench.core.schedule import Constant
from cl_bench.core.types import Batch
from cl_bench.data.contrastive import Augmented
from cl_bench.models.timm_models import resnet
from cl_bench.objectives.simsiam import SimSiam

VIEW = {
    **{"size": None, "crop": "resized", "scale": [0.2, 1.0], "ratio": [3 / 4, 4 / 3], "interpolation": "bilinear", "padding": 4},
    **{"flip": 0.5, "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}, "jitter_chance": 0.8},
    **{"grey_chance": 0.2, "blur": [0.1, 2.0], "blur_kernel": 7, "blur_chance": 0.0, "mean": [0.5], "std": [0.25]},
}


def ratio(name: str, pairs: int, ours: Callable[[], object], theirs: Callable[[], object], target: float) -> None:
    found = []
    for number in range(pairs + 1):
        times = []
        for work in (ours, theirs):
            begin = time.process_time()
            work()
            times.append(time.process_time() - begin)
        if number:  # the first warms up
            found.append((times[0] / times[1], *times))
    middle, a, b = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"{name}: {a * 1e3:.1f} ms over {b * 1e3:.1f} ms, ratio {middle:.3f} (target {target}), n={pairs}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["views", "step"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    view, rng = Augmented(**VIEW), torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    jitter = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)
    first = [T.ToPILImage(), T.RandomResizedCrop(32, (0.2, 1.0)), T.RandomHorizontalFlip(), jitter, T.RandomGrayscale(0.2)]
    one = T.Compose([*first, T.ToTensor(), T.Normalize([0.5], [0.25])])
    if options.only != "step":
        ratio("views", 5 if options.quick else 15, lambda: view(raw, rng), lambda: torch.stack([one(r) for r in raw]), 0.1)
    if options.only == "views":
        return
    objective = SimSiam(width=2048, layers=2, predictor_width=512, least_spread=0.0, least_rank=0.0)
    backbone, dim = resnet(input_shape=(3, 32, 32), name="resnet18", small_stem=True, pretrained=False)
    learner = Learner(
        network=Network(backbone, objective.head(dim, 10)),
        objective=objective,
        view=view,
        make_optimizer=lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9, weight_decay=5e-4),
        backbone_rate=1.0,
        schedule=Constant(),
        clip=None,
        batch_norm="train",
        fabric=Fabric(accelerator="cpu", devices=1),
        seed=0,
    )
    batch = Batch(raw, torch.zeros(256, dtype=torch.int64), 0)
    ready = learner.views(raw)

    def step(fresh: bool) -> None:
        output = learner.teach(batch) if fresh else learner.judge(ready, batch)
        learner.optimizer.zero_grad()
        output.loss.backward()
        learner.optimizer.step()

    ratio("step", 1 if options.quick else 3, lambda: step(True), lambda: step(False), 1.10)


if __name__ == "__main__":
    main()
