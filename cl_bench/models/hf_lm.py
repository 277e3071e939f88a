"""Causal language models of Hugging Face's transformers, with their own readout as the head's first weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.hub import reach
from cl_bench.core.kinds import Count


class Hidden(nn.Module):
    """Tokens int64 [B, L] to the last hidden states [B, L, width]; readout [vocabulary, width] is where the head begins."""

    def __init__(self, model: Any, vocabulary: int):
        super().__init__()
        self.body = model.base_model
        self.readout = model.get_output_embeddings().weight.detach()[:vocabulary].clone()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.body(input_ids=tokens, use_cache=False).last_hidden_state


def hf_lm(*, input_shape: tuple[int, ...], vocabulary: Count, pretrained: bool, name: str) -> tuple[nn.Module, int]:
    """(backbone, dim). name: of the hub, or a folder of save_pretrained; the data's tokens must be the model's own (data.tokenizer)."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        raise ConfigError("model=hf_lm needs the package transformers; install it with pip install 'cl-bench[text]'") from None
    folder = Path(name).expanduser()
    if not folder.is_dir():
        reach()
    try:
        config = AutoConfig.from_pretrained(folder if folder.is_dir() else name)
        source = config.name_or_path or name
        model = AutoModelForCausalLM.from_pretrained(source) if pretrained else AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0][:120]
        raise ConfigError(
            f"model.name={name} cannot be had ({type(error).__name__}: {reason}); "
            "connect to the hub once, or give a folder of save_pretrained"
        ) from error
    length = getattr(config, "max_position_embeddings", input_shape[0])
    if input_shape[0] - 1 > length:
        raise ConfigError(f"data.length={input_shape[0] - 1}, but {name} reads {length} tokens at most; lower data.length")
    if vocabulary > config.vocab_size:
        raise ConfigError(
            f"the data has {vocabulary} tokens and {name} {config.vocab_size}; set data.tokenizer to the model's tokenizer.json"
        )
    return Hidden(model.float(), vocabulary), config.hidden_size
