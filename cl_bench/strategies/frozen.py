"""What a frozen network says of the images of a stream, computed once: queries, and features under a head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cl_bench.core.learner import Learner
from cl_bench.core.seeds import generator
from cl_bench.core.types import Stream
from cl_bench.strategies.passes import evaluating


class Once:
    """images [B, C, H, W] -> answers [B, D] of a frozen function, asked once of every image whose view draws nothing.

    An image is known by two fingerprints of 64 bits of its bytes: among n images two are mixed up with a chance below
    n^2 / 2^110. prints, checks: int64 [n], sorted by prints; answers: [n + 1, D], the last row not a number.
    """

    def __init__(self, ask: Callable[[Tensor], Tensor], learner: Learner, stream: Stream, batch_size: int):
        self.ask, self.plain = ask, learner.view
        example = stream.experiences[0].train.raw[:1]
        weights = torch.empty(2, example[0].numel(), dtype=torch.int64)
        self.weights = weights.random_(-(2**63), None, generator=generator(0, "fingerprints")).to(learner.device)
        self.draws = draws(learner, example)
        self.x: Tensor | None = None  # what the view has made last, and the places of its answers
        self.rows = self.weights[0, :0]
        sets = [] if self.draws else [e.train for e in stream.experiences]
        held = [e.valid for e in stream.experiences] + [test.valid for test in stream.tests.values()]
        sets += [test.data for test in stream.tests.values()] + [data for data in held if data is not None]
        prints, answers = [], []
        with evaluating(learner.network), torch.no_grad(), learner.fabric.autocast():
            for raw in (portion.to(learner.device) for data in sets for portion in data.raw.split(batch_size)):
                prints.append(self.fingerprints(raw))
                answers.append(ask(self.plain(raw, None)))
        (self.prints, order), self.checks = torch.cat(prints, 1)[0].sort(stable=True), torch.cat(prints, 1)[1]
        self.checks, found = self.checks[order], torch.cat(answers)[order]
        self.answers = torch.cat([found, torch.full_like(found[:1], torch.nan)])
        learner.view = self.view

    def fingerprints(self, raw: Tensor) -> Tensor:
        """int64 [2, B]: sums modulo 2^64, the same in any order."""
        return torch.stack([(raw.flatten(1) * row).sum(1) for row in self.weights])

    def view(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        """The learner's own, and where its answers stand."""
        x, self.x = self.plain(raw, rng), None
        if rng is None or not self.draws:
            prints, checks = self.fingerprints(raw)
            rows = torch.searchsorted(self.prints, prints).clamp(max=len(self.prints) - 1)
            known = (self.prints[rows] == prints) & (self.checks[rows] == checks)
            self.rows = rows.where(known, len(self.prints))
            if rng is not None or bool(known.all()):  # a step does not wait for the device: what it trains on is known
                self.x = x
        return x

    @torch.compiler.disable
    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.answers[self.rows] if x is self.x else self.ask(x)


def choose_parameters(learner: Learner) -> None:
    """From now on the learner steps what requires a gradient."""
    learner.parameters = [p for p in learner.network.parameters() if p.requires_grad]
    learner.new_optimizer()


def draws(learner: Learner, raw: Tensor) -> bool:
    """Whether the view takes random numbers."""
    rng = torch.Generator(learner.device)
    before = rng.get_state()
    learner.view(raw.to(learner.device), rng)
    return not torch.equal(before, rng.get_state())


class Still(nn.Module):
    """A backbone that does not learn; `once` spares passes over images it has seen."""

    def __init__(self, backbone: nn.Module, learner: Learner, stream: Stream, batch_size: int):
        super().__init__()
        self.backbone = backbone
        self.once = Once(backbone, learner, stream, batch_size)

    def train(self, mode: bool = True) -> Still:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.once(x)
