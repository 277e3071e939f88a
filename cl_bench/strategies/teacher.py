"""The network as it was, to learn from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from cl_bench.core.learner import Network


class Teacher:
    """A copy in evaluation mode, so that running statistics and dropout stand still; made once, then refilled."""

    def __init__(self, network: Network):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def become(self, network: Network) -> None:
        self.network.load_state_dict(network.state_dict())

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.network(x)

    def state_dict(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.network.load_state_dict(state)
