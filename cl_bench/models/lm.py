"""Small causal transformers over tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count

STD = 0.02  # of initial weights (GPT-2)


class Attention(nn.Module):
    """Each position reads itself and those before it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, L, width / heads]
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm (2002.04745): x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Tokens int64 [B, L] to features [B, L, width]; learned positions, no dropout."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int):
        super().__init__()
        self.vocabulary = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(1, length, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                last = name.endswith(("out.weight", "down.weight"))  # what adds to the residual stream shrinks with depth (GPT-2)
                nn.init.normal_(p, std=STD / math.sqrt(2 * depth) if last else STD)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.blocks(self.vocabulary(tokens) + self.positions[:, : tokens.shape[1]]))


def lm(
    *, input_shape: tuple[int, ...], vocabulary: Count, pretrained: bool, width: Count, depth: Count, heads: Count
) -> tuple[nn.Module, int]:
    """(backbone, dim); input_shape: a block of text and one token more."""
    if pretrained:
        raise ConfigError("model.init=pretrained: nobody publishes weights of this model; use scratch or a file of your own")
    if width % heads:
        raise ConfigError(f"model.heads={heads} does not divide model.width={width}; give heads that do")
    return Transformer(vocabulary, input_shape[0] - 1, width, depth, heads), width
