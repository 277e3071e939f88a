"""Pictures from inside a run: feature maps of a block, and the loss around the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Positive
from cl_bench.core.learner import Learner
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Stream
from cl_bench.mistakes import nearest
from cl_bench.probes.moment import WHOLE, Moment, MomentProbe, Row
from cl_bench.strategies.passes import evaluating


class FeatureMaps(MomentProbe):
    """What a block makes of the first task's test images after each task, mean over channels (2110.06976, figure 5):
    probes/maps_after<k>.png."""

    def __init__(self, *, layer: str, images: Count):
        self.layer, self.images = layer, images

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        modules = [name for name, _ in learner.network.get_submodule("backbone").named_modules() if name]
        if self.layer not in modules:
            raise ConfigError(f"probe.feature_maps.layer={self.layer} is no module of the backbone; {nearest(self.layer, modules)}")
        raw = next(iter(held_out.values())).raw
        self.raw = raw[:: max(1, len(raw) // self.images)][: self.images].to(learner.device)  # of several classes: they may be in order
        if self.maps(learner).ndim != 3:
            raise ConfigError(f"probe.feature_maps.layer={self.layer} has no maps [channels, height, width]; name a block such as layer2")

    @torch.no_grad()
    def maps(self, learner: Learner) -> Tensor:
        """[N, H, W]"""
        kept: list[Tensor] = []
        module = learner.network.get_submodule("backbone").get_submodule(self.layer)
        hook = module.register_forward_hook(lambda module, given, out: kept.append(out))
        with evaluating(learner.network):
            learner.network.features(learner.view(self.raw, None))
        hook.remove()
        return kept[0].float().mean(1)

    def __call__(self, moment: Moment) -> Iterator[Row]:
        from matplotlib.figure import Figure

        assert moment.learner is not None
        images = [*self.raw.float().mean(1).cpu(), *self.maps(moment.learner).cpu()]
        figure = Figure(figsize=(1.2 * len(self.raw), 2.6), layout="constrained")
        for number, (axes, image) in enumerate(zip(figure.subplots(2, len(self.raw), squeeze=False).flatten(), images, strict=True)):
            axes.imshow(image.numpy(), cmap="gray" if number < len(self.raw) else "viridis")
            axes.set_axis_off()
        (moment.folder / "probes").mkdir(exist_ok=True)
        figure.savefig(moment.folder / "probes" / f"maps_after{moment.after}.png", dpi=100)
        yield from ()


class Landscape(MomentProbe):
    """Loss of the first task around the weights, when it was learned and at the end, along two random directions scaled filter by
    filter (1712.09913), of a randomly initialised linear classifier (2110.06976), both the same at both moments:
    probes/landscape_after<k>.csv and .png; landscape_rise is how far the border lies above the middle."""

    def __init__(self, *, points: Count, reach: Positive, images: Count):
        self.points, self.reach, self.images = points, reach, images

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        data = next(iter(held_out.values()))
        self.data = data.take(torch.arange(min(self.images, len(data)))).to(learner.device)
        self.num_classes = stream.num_classes

    def __call__(self, moment: Moment) -> Iterator[Row]:
        if not (moment.last or moment.after == moment.held[0].learned):
            return
        assert moment.learner is not None
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure

        table, steps = self.losses(moment.learner, moment.seed), torch.linspace(-self.reach, self.reach, self.points)
        lines = ["a,b,loss", *(f"{a:.4f},{b:.4f},{table[i, j]:.6f}" for i, a in enumerate(steps) for j, b in enumerate(steps))]
        folder = moment.folder / "probes"
        folder.mkdir(exist_ok=True)
        (folder / f"landscape_after{moment.after}.csv").write_text("\n".join(lines) + "\n")
        figure = Figure(figsize=(4, 3.4), layout="constrained")
        axes = figure.subplots()
        low, high = float(table.min()), max(float(table.max()), float(table.min()) + 1e-6)
        space, norm = (
            (torch.logspace, LogNorm()) if low > 0 else (torch.linspace, None)
        )  # far from the weights a loss is tens of times higher
        ends = (math.log10(low), math.log10(high)) if low > 0 else (low, high)
        levels = space(*ends, 21).tolist()
        filled = axes.contourf(steps.numpy(), steps.numpy(), table.T.cpu().numpy(), levels, norm=norm, extend="both")
        figure.colorbar(filled, label="loss (nats)", ticks=levels[::4], format="%.3g")
        axes.plot(0, 0, "k+")  # the weights
        axes.set(xlabel="first direction", ylabel="second direction")
        figure.savefig(folder / f"landscape_after{moment.after}.png", dpi=100)
        border = torch.cat([table[0], table[-1], table[1:-1, 0], table[1:-1, -1]])
        yield moment.row(WHOLE, "landscape_rise", border.mean() - table[self.points // 2, self.points // 2])

    @torch.no_grad()
    def losses(self, learner: Learner, seed: int) -> Tensor:
        """[points, points]"""
        backbone, rng = learner.network.get_submodule("backbone"), generator(seed, "landscape")
        here = {name: p.detach() for name, p in backbone.named_parameters()}
        ways = [{name: direction(p, rng) for name, p in here.items()} for _ in range(2)]
        x = learner.view(self.data.raw, None)
        steps, found = torch.linspace(-self.reach, self.reach, self.points).tolist(), x.new_zeros(self.points, self.points)
        with evaluating(learner.network):
            weight = torch.randn(self.num_classes, backbone(x[:1]).shape[1], generator=rng).to(x)
            weight = weight / weight.shape[1] ** 0.5
            for i, a in enumerate(steps):
                for j, b in enumerate(steps):
                    moved: Any = {name: p + a * ways[0][name] + b * ways[1][name] for name, p in here.items()}
                    found[i, j] = F.cross_entropy(torch.func.functional_call(backbone, moved, (x,)) @ weight.T, self.data.y)
        return found


def direction(p: Tensor, rng: torch.Generator) -> Tensor:
    """Random, each filter as long as the weight's; vectors (biases, norms) stay where they are."""
    if p.ndim < 2:
        return torch.zeros_like(p)
    drawn = torch.randn(p.shape, generator=rng).to(p)
    size = (len(p), *([1] * (p.ndim - 1)))
    return drawn * (p.flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1).clamp(min=1e-12)).view(size)
