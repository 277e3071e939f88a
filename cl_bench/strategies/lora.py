"""LoRA: low-rank changes of a frozen transformer, by the library peft."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.types import Stream
from cl_bench.strategies.frozen import choose_parameters
from cl_bench.strategies.masked import OwnClasses


class LoRA(OwnClasses):
    """LoRA (2106.09685): W + scale / rank * B A in the named layers; one pair for the whole stream, trained with the head."""

    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __init__(self, *, rank: Count, scale: Count, layers: list[str], class_mask: bool):
        super().__init__(class_mask=class_mask)
        self.rank, self.scale, self.layers = rank, scale, layers

    def prepare(self, learner: Learner, stream: Stream) -> None:
        super().prepare(learner, stream)
        try:
            import peft
        except ImportError as error:
            raise ConfigError(f"strategy=lora needs the library peft ({error}); pip install 'cl-bench[peft]'") from error
        backbone = learner.network.backbone
        names = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
        if not any(name.endswith(tuple(f".{layer}" for layer in self.layers)) for name in names):
            few = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
            raise ConfigError(f"strategy.layers={self.layers}: this model has no such linear layers; it has {few}")
        learner.reseed("adapters")
        settings: Any = peft.LoraConfig(r=self.rank, lora_alpha=self.scale, target_modules=self.layers, lora_dropout=0.0, bias="none")
        peft.inject_adapter_in_model(settings, backbone.requires_grad_(False))
        learner.network.to(learner.parameters[0])
        choose_parameters(learner)
