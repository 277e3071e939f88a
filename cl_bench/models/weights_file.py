"""Where the first weights come from."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError


def load_weights(backbone: nn.Module, path: Path) -> tuple[str, str]:
    """Fill backbone from a .safetensors or .pth file; returns (sha256, one line on what was loaded)."""
    state = read_weights(path)
    if isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    state = {k.removeprefix("backbone."): v for k, v in state.items() if isinstance(v, Tensor)}
    own = backbone.state_dict()
    wrong = [f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in own if k in state and state[k].shape != own[k].shape]
    missing = [k for k in own if k not in state]
    if wrong or len(missing) == len(own):
        what = f"shapes differ: {', '.join(wrong[:3])}" if wrong else "no tensor has a name of this backbone"
        raise ConfigError(f"model.init={path} does not fit this backbone ({what}); choose the model it was saved from")
    backbone.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    extra = len([k for k in state if k not in own])
    text = f"{len(own) - len(missing)} of {len(own)} tensors from {path.name}; {len(missing)} kept their start, {extra} of the file unused"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), text


def read_weights(path: Path) -> dict:
    """Named tensors of a file; pickles with code in them are refused."""
    from safetensors.torch import load_file

    advice = "give a .safetensors file, or a .pth/.pt of plain tensors saved with torch.save(model.state_dict())"
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with warnings.catch_warnings(action="ignore"):  # torch's remarks on odd pickles: the error below says it
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(f"model.init={path} is no plain tensor file (a pickle with code, or not a pickle); {advice}") from error
    except Exception as error:  # damaged bytes are read as any instruction of pickle
        raise ConfigError(f"model.init={path} cannot be read (truncated or damaged?); {advice}") from error
    if not isinstance(state, dict):
        raise ConfigError(f"model.init={path} holds a {type(state).__name__}, not named tensors; {advice}")
    return state
