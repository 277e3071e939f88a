"""Strategies that add terms, added up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.base import Strategy


class Compose(Strategy):
    """parts: name -> strategy; each must leave `loss`, `arrange` and `learns` alone, for two of those cannot both be right.

    After the backward pass they act in the order given: A-GEM projects, and SI's path counts, the gradient that the
    parts before it left.
    """

    def __init__(self, *, parts: Mapping[str, Strategy]):
        self.parts = dict(parts)
        for name, part in self.parts.items():
            if any(getattr(type(part), name) is not getattr(Strategy, name) for name in ("loss", "arrange", "learns")):
                raise ConfigError(
                    f"strategy.parts.{name} ({type(part).__name__}) does more than add terms; compose term-adders such as ewc and er"
                )

    def prepare(self, learner: Learner, stream: Stream) -> None:
        for name, part in self.parts.items():
            try:
                part.prepare(learner, stream)
            except ConfigError as error:  # it knows its settings as strategy.*
                raise ConfigError(re.sub(r"\bstrategy\.(?=\w+=)", f"strategy.parts.{name}.", str(error))) from error

    def before_task(self, learner: Learner, task: Experience) -> None:
        for part in self.parts.values():
            part.before_task(learner, task)

    def after_task(self, learner: Learner, task: Experience) -> None:
        for part in self.parts.values():
            part.after_task(learner, task)

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        found = {name: part.terms(learner, batch, output) for name, part in self.parts.items()}
        return {f"{name}.{term}": value for name, terms in found.items() for term, value in terms.items()}  # er and derpp both replay

    def after_backward(self, learner: Learner) -> None:
        for part in self.parts.values():
            part.after_backward(learner)

    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        for part in self.parts.values():
            part.after_step(learner, batch, output)

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
