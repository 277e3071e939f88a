"""Weights as one flat vector, and the quadratic that holds them to a centre."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """[P], a copy."""
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of vector [P] with the shapes of like."""
    parts = vector.split([t.numel() for t in like])
    return [part.view_as(t) for part, t in zip(parts, like, strict=True)]


class Quadratic:
    """Sum of 1/2 F_t (theta - theta_t)^2 over tasks t, kept as ONE weighted square and a constant.

    F1 (x-m1)^2 + F2 (x-m2)^2 = (F1+F2) (x-m)^2 + F1 F2/(F1+F2) (m1-m2)^2, m = (F1 m1 + F2 m2)/(F1+F2):
    exact, so that a penalty per old task costs no more memory or time than one.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = list(parameters)
        start = flatten(parameters)
        self.weight, self.centre = torch.zeros_like(start), start
        self.offset = torch.zeros((), device=start.device, dtype=start.dtype)
        self.weights, self.centres = split(self.weight, parameters), split(self.centre, parameters)
        self.distance, self.gradient = torch.empty_like(start), torch.empty_like(start)  # as of the last value()
        self.distances, self.gradients = split(self.distance, parameters), split(self.gradient, parameters)

    def add(self, weight: Tensor, centre: Tensor) -> None:
        """One more task: weight [P] >= 0, centre [P]."""
        total = self.weight + weight
        share = torch.where(total > 0, weight / total, 1.0)
        gap = centre - self.centre
        self.offset += 0.5 * (self.weight * share * gap * gap).sum()
        self.centre += share * gap
        self.weight.copy_(total)

    def replace(self, weight: Tensor, centre: Tensor) -> None:
        self.weight.copy_(weight)
        self.centre.copy_(centre)

    @torch.no_grad()
    def value(self) -> Tensor:
        """For a loss to report; autograd does not see it, for its accumulation costs more than all of this."""
        torch._foreach_copy_(self.distances, self.parameters)
        self.distance.sub_(self.centre)
        torch.mul(self.weight, self.distance, out=self.gradient)
        return torch.dot(self.gradient, self.distance).mul_(0.5).add_(self.offset)

    def pull(self) -> None:
        """Add the gradient that the last value() found to the parameters' own; belongs into after_backward."""
        gradients = []
        for p in self.parameters:
            if p.grad is None:  # the batch's loss does not reach it
                p.grad = torch.zeros_like(p)
            gradients.append(p.grad)
        torch._foreach_add_(gradients, self.gradients)

    def state_dict(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "centre": self.centre, "offset": self.offset}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in ("weight", "centre", "offset"):
            getattr(self, name).copy_(state[name])
