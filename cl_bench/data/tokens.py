"""Texts to blocks of numbers: bytes as they are, or a byte-level BPE (1508.07909) learned from the training part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.data.resident import reason

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = 256
END = "<|end|>"  # between texts: token 0 of a BPE, as the byte 0 that no text holds
ENDS = (END, "<|endoftext|>")  # the second: of Pythia's tokenizer, for model=hf_lm
LEAST = BYTES + 1  # of a BPE: all bytes and END


def blocks(tokens: Tensor, length: int, what: str) -> Tensor:
    """[N, length + 1] from tokens [n]: each block begins with the last token of the one before, so that every token is predicted once."""
    count = (len(tokens) - 1) // length
    if count < 1:
        raise ConfigError(
            f"data.length={length} is longer than the {what}, which has {len(tokens)} tokens; lower data.length, or give more text"
        )
    return tokens[: count * length + 1].unfold(0, length + 1, length).contiguous()


def as_bytes(texts: Sequence[str]) -> Tensor:
    """uint8 [n] of all texts, a byte 0 after each."""
    return torch.from_numpy(np.frombuffer("".join(f"{text}\0" for text in texts).encode(), np.uint8).copy())


def as_bpe(texts: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """int32 [n] of all texts, END after each."""
    return torch.tensor([t for found in tokenizer.encode_batch(list(texts)) for t in (*found.ids, 0)], dtype=torch.int32)


def learn_bpe(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """The same texts give the same tokenizer."""
    _require()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_bpe(path: Path) -> Tokenizer:
    _require()
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(path.read_text())
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(
            f"data.tokenizer={path} cannot be read ({reason(error)}); give a tokenizer.json that this program wrote"
        ) from None
    if tokenizer.id_to_token(0) not in ENDS:
        raise ConfigError(
            f"data.tokenizer={path}: its token 0 is not {' or '.join(ENDS)}; give a tokenizer.json that this program wrote, or Pythia's"
        )
    return tokenizer


def sha256(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def _require() -> None:
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        raise ConfigError(
            "data.tokens=bpe needs the package tokenizers; install it with pip install 'cl-bench[text]', or use data.tokens=bytes"
        ) from None
