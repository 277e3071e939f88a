"""The one thing that changes during a run: weights, optimizer, random numbers of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cl_bench.core.schedule import Schedule
from cl_bench.core.seeds import fold, reseed_global
from cl_bench.core.types import Batch, Output

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from cl_bench.core.objective import Objective

View = Callable[[Tensor, torch.Generator | None], Tensor]  # raw bytes to network input; None draws nothing


class Network(nn.Module):
    """Backbone + head: images [B, C, H, W] -> logits [B, num_classes]; features [B, dim] are one call earlier."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.columns: dict[int, int] = {}  # task -> which part of the features is its own, where each task has one

    def features(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def own(self, features: Tensor, task: int) -> Tensor:
        """What of the features [N, D] is read where the task is told."""
        return features.chunk(len(self.columns), 1)[self.columns[task]] if self.columns else features

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class Learner:
    """Network, objective and optimizer of a run. The loop steps it; strategies ask it to teach."""

    def __init__(
        self,
        *,
        network: Network,
        objective: Objective,
        view: View,
        make_optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer],
        backbone_rate: float,
        schedule: Schedule,
        clip: float | None,
        batch_norm: str,
        fabric: Fabric,
        seed: int,
    ):
        self.network, self.objective, self.view = network, objective, view
        self.make_optimizer, self.backbone_rate, self.schedule, self.clip = make_optimizer, backbone_rate, schedule, clip
        self.batch_norm, self.fabric, self.seed = batch_norm, fabric, seed
        self.device = fabric.device
        self.taught: nn.Module = network  # or its compiled twin of the same weights
        self.rng = torch.Generator()  # draws of the step, on the CPU: cheap to point anywhere
        self.view_rng = torch.Generator(self.device)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.number = self.step = self.steps = 0  # of the current experience, and where it stands; the loop counts
        self.masks: Tensor | None = None  # [T, C], row t = logits open to task t; None opens all
        self.new_optimizer()

    def new_optimizer(self) -> None:
        """From scratch, over what is learned; the backbone's group may have a rate of its own (2303.05118)."""
        parts, scales = [self.parameters], [1.0]
        if self.backbone_rate != 1:
            head = {id(p) for p in self.network.get_submodule("head").parameters()}
            parts = [[p for p in self.parameters if (id(p) in head) == heads] for heads in (False, True)]
            scales = [self.backbone_rate, 1.0]
        groups = [({"params": part}, scale) for part, scale in zip(parts, scales, strict=True) if part]
        self.optimizer = self.make_optimizer([group for group, _ in groups])
        self.base_rates = [g["lr"] * scale for g, (_, scale) in zip(self.optimizer.param_groups, groups, strict=True)]

    def reseed(self, purpose: str, *place: int) -> None:
        """Point every random number that follows at (seed, purpose, place)."""
        number = fold(self.seed, purpose, *place)
        self.rng.manual_seed(number)
        self.view_rng.manual_seed(number)
        reseed_global(number, cuda=self.device.type == "cuda")

    def train_mode(self, first_task: bool) -> None:
        """Training mode; batch-norm statistics stand still after the first task where asked."""
        self.network.train()
        if self.batch_norm == "frozen" and not first_task:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def batch(self, raw: Tensor, y: Tensor, task: int | Tensor) -> Batch:
        """A batch with the logits open to its task; task may differ per example, int64 [B]."""
        return Batch(raw, y, task, None if self.masks is None else self.masks[task])

    def teach(self, batch: Batch) -> Output:
        """Loss of one batch, through fresh views."""
        return self.judge(self.views(batch.raw), batch)

    def views(self, raw: Tensor) -> list[Tensor]:
        """As many fresh views as the objective compares."""
        with self.fabric.autocast():
            return [self.view(raw, self.view_rng) for _ in range(self.objective.num_views)]

    def judge(self, views: list[Tensor], batch: Batch) -> Output:
        """Loss of one batch through these views."""
        with self.fabric.autocast():
            return replace(self.objective(self.taught, views, batch), views=views)

    def outputs(self, raw: Tensor, view: View | None = None) -> Tensor:
        """What a memory would remember of these examples, through one fresh view: the run's own, or another."""
        with self.fabric.autocast():
            return self.objective.outputs(self.taught, (view or self.view)(raw, self.view_rng))

    def update(self) -> None:
        """Clip, set the rate, step."""
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        factor = self.schedule(self.step, self.steps, self.number)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
