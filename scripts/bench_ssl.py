"""Self-supervision's own costs: `python scripts/bench_ssl.py [--quick] [--device cuda]`, one thread, about three minutes.

views: a batch of 256 at 32 x 32 through our views, over torchvision's transforms image by image in one worker (target 0.1).
step: SimSiam on ResNet-18, batch 256, views included, over the same step on ready views (target 1.10 on a CPU, 1.15 on a GPU).
knn: 10,000 queries against 50,000 features of 512, k 200, in the chunks of conf/probe/knn.yaml: seconds and the memory it adds.
Both sides in turn, the median of the ratios; processor time on a CPU, else the clock.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision.transforms as T
from lightning_fabric import Fabric
from omegaconf import OmegaConf

from cl_bench.build import build
from cl_bench.cli import CONF
from cl_bench.core.learner import Learner, Network
from cl_bench.core.schedule import Constant
from cl_bench.core.types import Batch
from cl_bench.models.timm_models import resnet
from cl_bench.probes.knn import votes


def chosen(group: str, name: str) -> dict[str, Any]:
    """Settings of conf/<group>/<name>.yaml alone."""
    settings: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    return {key: value for key, value in settings.items() if key != "defaults"}


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cpu":
        begin = time.process_time()
        work()
        return time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def ratio(name: str, pairs: int, device: str, ours: Callable[[], object], theirs: Callable[[], object], target: float) -> None:
    ours(), theirs()  # warm up
    times = [(seconds(ours, device), seconds(theirs, device)) for _ in range(pairs)]
    middle, a, b = (statistics.median(column) for column in zip(*[(a / b, a, b) for a, b in times], strict=True))
    print(f"{name}: {a * 1e3:.1f} ms over {b * 1e3:.1f} ms, ratio {middle:.3f} (target {target}), n={pairs}", flush=True)


def views(quick: bool, device: str) -> None:
    view, rng = build(chosen("view", "ssl"), ["cl_bench."]), torch.Generator(device).manual_seed(0)
    raw = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    jitter = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)
    first = [T.ToPILImage(), T.RandomResizedCrop(32, (0.2, 1.0)), T.RandomHorizontalFlip(), jitter, T.RandomGrayscale(0.2)]
    one, there = T.Compose([*first, T.ToTensor(), T.Normalize([0.5], [0.25])]), raw.to(device)
    ratio("views", 5 if quick else 15, device, lambda: view(there, rng), lambda: torch.stack([one(r) for r in raw]), 0.1)


def step(quick: bool, device: str) -> None:
    objective = build(chosen("objective", "simsiam") | {"least_spread": 0.0, "least_rank": 0.0}, ["cl_bench."])
    backbone, dim = resnet(input_shape=(3, 32, 32), name="resnet18", small_stem=True, pretrained=False)
    learner = Learner(
        network=Network(backbone, objective.head(dim, 10)).to(device),
        objective=objective,
        view=build(chosen("view", "ssl"), ["cl_bench."]),
        make_optimizer=lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9, weight_decay=5e-4),
        backbone_rate=1.0,
        schedule=Constant(),
        clip=None,
        batch_norm="train",
        fabric=Fabric(accelerator=device, devices=1),
        seed=0,
    )
    raw = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, device=device)
    batch, ready = Batch(raw, torch.zeros(256, dtype=torch.int64, device=device), 0), learner.views(raw)

    def learn(fresh: bool) -> None:
        output = learner.teach(batch) if fresh else learner.judge(ready, batch)
        learner.optimizer.zero_grad()
        output.loss.backward()
        learner.optimizer.step()

    pairs = 30 if device != "cpu" else 1 if quick else 3
    ratio("step", pairs, device, lambda: learn(True), lambda: learn(False), 1.10 if device == "cpu" else 1.15)


def knn(quick: bool, device: str) -> None:
    settings = chosen("probe", "knn")["knn"]
    bank = torch.randn(50_000, 512, device=device)
    bank.div_(bank.norm(dim=1, keepdim=True))  # in place: the peak is to be the probe's
    queries, labels = torch.randn(10_000, 512, device=device), torch.arange(50_000, device=device) % 100
    how = (100, settings["k"], settings["temperature"], settings["chunk"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    time = seconds(lambda: votes(queries, bank, labels, *how), device)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if device != "cpu":
        added = torch.cuda.max_memory_allocated() / 2**20
    print(f"knn: {time:.1f} s, {added:.0f} MiB{'' if device == 'cpu' else ' in all'}, chunks of {settings['chunk']} queries", flush=True)


def main() -> None:
    cases = {"views": views, "step": step, "knn": knn}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=list(cases))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, case in cases.items():
        if options.only in (None, name):
            case(options.quick, options.device)


if __name__ == "__main__":
    main()
