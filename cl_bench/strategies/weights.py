"""Weights as one flat vector, and the quadratic that holds them to a centre."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """[P], a copy."""
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of vector [P] with the shapes of like."""
    parts = vector.split([t.numel() for t in like])
    return [part.view_as(t) for part, t in zip(parts, like, strict=True)]


class _Pull(torch.autograd.Function):
    """offset + 1/2 sum weight * (theta - centre)^2 with its gradient in closed form, a few fused operations.

    Memory traffic is its whole cost: distances share a kept scratch, and backward hands its only gradient
    over, so that autograd adds the loss's own in place. It can be differentiated once.
    """

    @staticmethod
    def forward(ctx: Any, weight: list[Tensor], centre: list[Tensor], scratch: list[Tensor], offset: Tensor, *theta: Tensor) -> Tensor:
        ctx.gradient, value = [], offset * 2
        for w, c, distance, t in zip(weight, centre, scratch, theta, strict=True):
            torch.sub(t, c, out=distance)
            gradient = w * distance
            value += torch.dot(gradient.view(-1), distance.view(-1))
            ctx.gradient.append(gradient)
        return value * 0.5

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        if grads[0].device.type != "cpu" or grads[0] != 1:  # on the CPU looking is free and saves a pass
            torch._foreach_mul_(gradient, grads[0])
        return None, None, None, None, *gradient


class Quadratic:
    """Sum of 1/2 F_t (theta - theta_t)^2 over tasks t, kept as ONE weighted square and a constant.

    F1 (x-m1)^2 + F2 (x-m2)^2 = (F1+F2) (x-m)^2 + F1 F2/(F1+F2) (m1-m2)^2, m = (F1 m1 + F2 m2)/(F1+F2):
    exact, so that a penalty per old task costs no more memory or time than one.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = parameters
        start = flatten(parameters)
        self.weight, self.centre = torch.zeros_like(start), start
        self.offset = torch.zeros((), device=start.device, dtype=start.dtype)
        self.weights, self.centres = split(self.weight, parameters), split(self.centre, parameters)
        room = start.new_empty(max(p.numel() for p in parameters))  # one for all: it stays in the cache
        self.scratch = [room[: p.numel()].view_as(p) for p in parameters]

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

    def __call__(self) -> Tensor:
        return _Pull.apply(self.weights, self.centres, self.scratch, self.offset, *self.parameters)

    def state_dict(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "centre": self.centre, "offset": self.offset}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in ("weight", "centre", "offset"):
            getattr(self, name).copy_(state[name])
