"""What a language model loses on held-out text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from cl_bench.probes.readout import Readout


class TokenLoss:
    """Mean over all tokens, in nats: blocks have the same length."""

    text: ClassVar[bool] = True

    def __call__(self, readout: Readout) -> Mapping[str, Tensor]:
        return {"loss": readout.losses.double().mean()}
