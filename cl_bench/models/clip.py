"""CLIP's image tower as a backbone, and its text tower as a head, through open_clip (extra [clip])."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.hub import reach


class ImageTower(nn.Module):
    """Images [B, 3, H, W] -> embeddings [B, dim], not normalised; the text tower is left behind."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


def clip(*, input_shape: tuple[int, int, int], name: str, weights: str, pretrained: bool) -> tuple[nn.Module, int]:
    """(backbone, dim). name: of open_clip; weights: its tag, used with model.init=pretrained."""
    model = create(name, weights if pretrained else None, "model")
    size = model.visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    if tuple(input_shape) != (3, *size):
        raise ConfigError(
            f"model.name={name} looks at {size[0]} x {size[1]} x 3 and not at {input_shape[1]} x {input_shape[2]} x {input_shape[0]}; "
            f"set model.image_size={size[0]} model.channels=3"
        )
    return ImageTower(model.visual), int(model.visual.output_dim)


def create(name: str, tag: str | None, node: str) -> Any:
    """open_clip's model, in evaluation mode; one line where the package or the weights are missing. node: of the config that asks."""
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError(
            f"CLIP models come from open_clip ({error}); run pip install 'cl-bench[clip]', or choose another model"
        ) from error
    if tag == "openai" and not name.endswith("quickgelu"):
        raise ConfigError(f"{node}.weights=openai were trained with QuickGELU, which {node}.name={name} has not; give {name}-quickgelu")
    if tag is not None:
        reach()
    try:
        return open_clip.create_model(name, pretrained=tag).eval()
    except Exception as error:  # the hub's, the cache's, open_clip's own: all say that there are no weights
        reason = " ".join(str(error).split())[:160]
        instead = "model.init=scratch or model.init=<file>" if node == "model" else "objective.weights=<file>, a checkpoint of open_clip's"
        raise ConfigError(
            f"{node}.name={name}, {node}.weights={tag}: open_clip cannot make it ({type(error).__name__}: {reason}); "
            f"connect to the hub once, or give {instead}"
        ) from error


@torch.no_grad()
def text_head(name: str, tag: str | None, prompts: Sequence[Sequence[str]]) -> tuple[Tensor, float]:
    """([C, dim] of length 1, scale): per class the mean of its prompts' embeddings of length 1, brought to length 1 (2103.00020)."""
    import open_clip

    model, tokenize = create(name, tag, "objective"), open_clip.get_tokenizer(name)
    rows = []
    for texts in prompts:
        found = nn.functional.normalize(model.encode_text(tokenize(list(texts))).float(), dim=-1)
        rows.append(nn.functional.normalize(found.mean(0), dim=-1))
    return torch.stack(rows), float(model.logit_scale.exp())


def imagenet(kind: str) -> Sequence[Any]:
    """open_clip's own 1,000 class names, in the order of the wnids, or its 80 templates."""
    import open_clip

    found: Mapping[str, Sequence[Any]] = {"names": open_clip.IMAGENET_CLASSNAMES, "templates": open_clip.OPENAI_IMAGENET_TEMPLATES}
    return found[kind]
