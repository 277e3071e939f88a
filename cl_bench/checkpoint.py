"""Save by rename, restore; named plain tensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cl_bench.core.errors import ConfigError, RunError


def save(state: dict[str, Any], path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        torch.save(state, partial)
        partial.replace(path)  # a kill leaves the old file or the new one, never half of one
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        reason = str(error).split("\n")[0][:160]
        kept = "the last save is kept: " if path.exists() else ""
        raise RunError(f"{path} cannot be written ({reason}); {kept}free some room and run the same command again") from error


def load(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged bytes are read as any instruction of pickle
        raise ConfigError(f"{path} cannot be read (damaged?); delete its folder to start this run again") from error
