"""Vision transformers of timm, taken apart where prompts go in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError


def check_vit(strategy: str, backbone: nn.Module) -> None:
    """Refuse what has no class token beside its patch tokens."""
    parts = ("patch_embed", "blocks", "norm", "_pos_embed", "cls_token")
    missing = [name for name in parts if getattr(backbone, name, None) is None]
    if missing:
        raise ConfigError(
            f"strategy={strategy} puts prompts beside the class token and the patch tokens of a vision transformer, and this "
            f"{type(backbone).__name__} has no {missing[-1]}; use model=vit_nano, vit_b or their like"
        )


def encode(vit: Any, x: Tensor, prompts: Tensor | None, beside_class: bool) -> Tensor:
    """Images -> after the last norm [B, P, D] at the prompts [B, P, D], without them [B, 1, D] at the class token.

    Prompts stand first and have no position of their own; beside_class: they take the class token's, as in the PyTorch code,
    which has them behind it. Attention knows no order but that.
    """
    from timm.models.vision_transformer import Block

    tokens = vit._pos_embed(vit.patch_embed(x))
    if prompts is not None:
        if beside_class and vit.pos_embed is not None and not vit.no_embed_class:
            prompts = prompts + vit.pos_embed[:, :1]
        tokens = torch.cat([prompts, tokens], 1)
    tokens, count, last = vit.norm_pre(tokens), 1 if prompts is None else prompts.shape[1], vit.blocks[-1]
    watched = any(module._forward_hooks for module in (vit.blocks, vit.norm, *last.modules()))
    if watched or type(last) is not Block:  # a probe's forward hook sees every token
        return vit.norm(vit.blocks(tokens))[:, :count]
    for block in list(vit.blocks)[:-1]:
        tokens = block(tokens)
    tokens = (tokens + last.drop_path1(last.ls1(last.attn(last.norm1(tokens)))))[:, :count]  # nobody reads the others any more
    return vit.norm(tokens + last.drop_path2(last.ls2(last.mlp(last.norm2(tokens)))))


def class_token(vit: Any, x: Tensor) -> Tensor:
    """[B, D]: the class token of the bare transformer after its last norm."""
    return encode(vit, x, None, False)[:, 0]


class FrozenViT(nn.Module):
    """A transformer `vit` that does not learn and stays in evaluation mode, and the query that it is asked for."""

    def __init__(self, vit: Any, query: Callable[[Tensor], Tensor]):
        super().__init__()
        self.vit, self.query = vit.requires_grad_(False), query

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.vit.eval()
        return self


class PrefixAttention(nn.Module):
    """timm's attention with more keys and values in front, [B, L, D] each, set before a pass; without them it is timm's own."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention: Any = attention
        self.prefix: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, **given: Any) -> Tensor:
        if self.prefix is None:
            return self.attention(x, **given)
        a = self.attention
        q, k, v = a.qkv(x).unflatten(-1, (3, a.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, tokens, D / heads]
        before_k, before_v = (part.unflatten(-1, (a.num_heads, -1)).transpose(1, 2) for part in self.prefix)
        k, v = torch.cat([before_k.to(k), a.k_norm(k)], 2), torch.cat([before_v.to(v), v], 2)
        found = F.scaled_dot_product_attention(a.q_norm(q), k, v, dropout_p=a.attn_drop.p if self.training else 0.0)
        return a.proj_drop(a.proj(a.norm(found.transpose(1, 2).flatten(2))))


def prefixed(vit: Any, x: Tensor, prefixes: Mapping[int, tuple[Tensor, Tensor]]) -> Tensor:
    """[B, D]: the class token, with prefixes in these layers, whose attention is PrefixAttention."""
    for layer, prefix in prefixes.items():
        vit.blocks[layer].attn.prefix = prefix
    found = class_token(vit, x)
    for layer in prefixes:
        vit.blocks[layer].attn.prefix = None
    return found
