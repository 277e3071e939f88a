"""Learning to prompt: a frozen transformer, and a pool of prompts that it is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, NonNegative
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.frozen import Once, choose_parameters
from cl_bench.strategies.masked import OwnClasses
from cl_bench.strategies.pool import Pool
from cl_bench.strategies.replay import ER
from cl_bench.strategies.tokens import FrozenViT, check_vit, class_token, encode

STD = 0.02  # of timm's heads


class L2P(OwnClasses):
    """L2P (2112.08654): N prompts with the nearest keys stand before the tokens; loss + pull * sum over them of 1 - cos(q(x), k).

    q: the class token of the frozen network without prompts. The head reads the mean of the outputs at the prompts.
    """

    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __init__(
        self,
        *,
        size: Count,
        length: Count,
        top: Count,
        pull: NonNegative,
        init: list[float],
        head: Literal["zeros", "normal"],
        position: Literal["none", "class"],
        selection: Literal["per_sample", "batchwise", "random"],
        vote: Count | None,
        frequency_penalty: bool,
        prompt_mask: bool,
        copy_prompts: bool,
        class_mask: bool,
        rehearsal: Strategy | None,
        batch_size: Count,
    ):
        super().__init__(class_mask=class_mask)
        if top > size:
            raise ConfigError(f"strategy.top={top} is more than the strategy.size={size} prompts of the pool; give a larger pool or fewer")
        if copy_prompts and not prompt_mask:
            raise ConfigError("strategy.copy_prompts=true copies from task to task, which only strategy.prompt_mask=true parts; set both")
        if len(init) != 2 or init[0] >= init[1]:
            raise ConfigError(f"strategy.init={init} is no range; give [lowest, highest]")
        self.size, self.length, self.top, self.pull, self.init, self.head = size, length, top, pull, init, head
        self.position, self.selection, self.vote, self.frequency_penalty = position, selection, vote, frequency_penalty
        self.prompt_mask, self.copy_prompts, self.batch_size = prompt_mask, copy_prompts, batch_size
        if rehearsal is not None and not isinstance(rehearsal, ER):
            raise ConfigError(f"strategy.rehearsal is a {type(rehearsal).__name__}, which keeps no memory as ER does; give er or null")
        self.rehearsal = rehearsal

    @property
    def remarks(self) -> list[str]:
        if self.selection != "batchwise":
            return []
        return [
            "strategy.selection=batchwise: samples that are looked at together choose prompts together, so that the composition of a "
            "test batch leaks into the accuracy; report selection=per_sample beside it"
        ]

    def prepare(self, learner: Learner, stream: Stream) -> None:
        super().prepare(learner, stream)
        vit: Any = learner.network.backbone
        check_vit("l2p", vit)
        self.check(stream)
        self.place = torch.zeros(len(self.own), dtype=torch.int64)
        for n, e in enumerate(stream.experiences):
            self.place[e.index] = n
        self.place = self.place.to(learner.device)
        learner.reseed("prompts")
        settings: Any = {"selection": self.selection, "vote": self.vote, "penalty": self.frequency_penalty}
        self.pool = Pool(size=self.size, length=self.length, top=self.top, dim=vit.embed_dim, **settings).to(learner.parameters[0])
        for p in self.pool.parameters():
            nn.init.uniform_(p, self.init[0], self.init[1])
        self.pool.rng = learner.rng
        head: Any = learner.network.head
        for p in head.parameters():
            nn.init.zeros_(p)
        if self.head == "normal":
            nn.init.trunc_normal_(head.weight, std=STD)
        query = Once(lambda x: class_token(vit, x), learner, stream, self.batch_size)
        learner.network.backbone = PromptedViT(vit, self.pool, query, self.position == "class")
        choose_parameters(learner)
        if self.rehearsal is not None:
            self.rehearsal.prepare(learner, stream)

    def check(self, stream: Stream) -> None:
        """What only the stream tells."""
        count = len(stream.experiences)
        if self.prompt_mask and count * self.top > self.size:
            raise ConfigError(
                f"strategy.prompt_mask gives each of {count} tasks strategy.top={self.top} prompts of its own, which runs past the pool of "
                f"strategy.size={self.size}; give strategy.size={count * self.top}, or prompt_mask=false"
            )
        of_tasks = {"frequency_penalty": self.frequency_penalty, "prompt_mask": self.prompt_mask}  # copy_prompts stands beside the latter
        name = next((name for name, given in of_tasks.items() if given), None)
        if name and not all(e.announced for e in stream.experiences):
            raise ConfigError(f"strategy.{name}=true needs task boundaries, which this stream hides; give false")

    def before_task(self, learner: Learner, task: Experience) -> None:
        self.pool.past.copy_(self.pool.counts)
        first = int(self.place[task.index]) * self.top
        if self.copy_prompts and first:
            with torch.no_grad():
                self.pool.prompts[first : first + self.top] = self.pool.prompts[first - self.top : first]

    def loss(self, learner: Learner, batch: Batch) -> Output:
        if self.prompt_mask:
            place = self.place[batch.task]
            self.pool.forced = place[..., None] * self.top + torch.arange(self.top, device=place.device)
        output = super().loss(learner, batch)
        if self.rehearsal is None or not len(self.rehearsal.memory):
            return output
        old, _ = self.rehearsal.recall(learner, batch.task)
        self.pool.forced = None  # remembered examples choose as at test, among all classes
        again = Strategy.loss(self, learner, old)
        return output.plus({"replay": self.rehearsal.strength * again.loss})

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return {"pull": self.pull * self.pool.distance}

    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        if self.rehearsal is not None:
            self.rehearsal.after_step(learner, batch, output)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.rehearsal is None else self.rehearsal.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.rehearsal is not None:
            self.rehearsal.load_state_dict(state)


class PromptedViT(FrozenViT):
    """images [B, C, H, W] -> mean of the outputs at the chosen prompts [B, D]; the transformer itself does not learn."""

    def __init__(self, vit: nn.Module, pool: Pool, query: Once, beside_class: bool):
        super().__init__(vit, query)
        self.pool, self.beside_class = pool, beside_class

    def forward(self, x: Tensor) -> Tensor:
        prompts = self.pool(self.query(x))
        return encode(self.vit, x, prompts, self.beside_class).mean(1)
