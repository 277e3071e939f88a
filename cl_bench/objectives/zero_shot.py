"""Cross-entropy of images against what a text tower says of the classes; nothing of the head is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.types import Stream
from cl_bench.models import clip
from cl_bench.objectives.supervised import Supervised

Fill = str | Callable[[str], str]
OPEN_CLIP = "open_clip"  # in the place of a list: open_clip's own, of ImageNet


class ZeroShot(Supervised):
    """CLIP's zero-shot classifier (2103.00020): logit_c = exp(s) cos(image, mean over templates of text_c), frozen.

    templates: data set -> prompts with {} for the class, `default` for the others; names: data set -> class names, else the data's.
    """

    told: ClassVar[bool] = True  # its head is told by text, from the stream's class names

    def __init__(
        self,
        *,
        loss_over: Literal["all", "seen", "own"],
        name: str,
        weights: str | None,
        templates: Mapping[str, Any],
        names: Mapping[str, Any],
    ):
        super().__init__(loss_over=loss_over)
        self.name, self.weights, self.templates, self.names = name, weights, dict(templates), dict(names)

    def head(self, dim: int, num_classes: int) -> nn.Module:
        return TextHead(dim, num_classes)

    def begin(self, head: nn.Module, backbone: nn.Module, stream: Stream) -> None:
        """Fill the head for the classes of every experience; the first data set that has a class names it."""
        prompts: dict[int, list[str]] = {}
        for e in stream.experiences:
            names, templates = self.names_of(e.name, stream), self.templates_of(e.name)
            if len(names) != len(e.classes):
                raise ConfigError(
                    f"objective.names: {e.name} has {len(e.classes)} classes and {len(names)} names; "
                    f"set objective.names.{e.name}=[...], one for each class"
                )
            for c, name in zip(e.classes, names, strict=True):
                prompts.setdefault(c, [t.format(name) if isinstance(t, str) else t(name) for t in templates])
        weight, scale = clip.text_head(self.name, self.weights, [prompts[c] for c in range(stream.num_classes)])
        assert isinstance(head, TextHead)
        if weight.shape != head.weight.shape:
            raise ConfigError(
                f"objective.name={self.name} has texts of {weight.shape[1]} numbers, the backbone images of {head.weight.shape[1]}; "
                "give both the same name"
            )
        head.weight.copy_(weight * scale)

    def names_of(self, data: str, stream: Stream) -> Sequence[str]:
        given = self.names.get(data)
        if given == OPEN_CLIP:
            return clip.imagenet("names")
        return given or [name.replace("_", " ") for name in stream.class_names.get(data, ())]

    def templates_of(self, data: str) -> Sequence[Fill]:
        given = self.templates.get(data, self.templates["default"])
        return clip.imagenet("templates") if given == OPEN_CLIP else given


class TextHead(nn.Module):
    """Embeddings [B, D] -> logits [B, C]; weight [C, D] has the length of the scale, and is no parameter."""

    weight: Tensor

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, dim))

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1) @ self.weight.t()
