"""Where the first weights come from."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import said

PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")  # of data parallel, Lightning, our own networks, torch.compile
ABOUT = "cl_bench"  # the key of a .safetensors file's metadata under which ours stand, as JSON
SHAPELESS = ("heads", "groups")  # settings of which no tensor's shape tells
NAMED = 10  # ignored tensors listed in provenance.json


def load_weights(backbone: nn.Module, path: Path, here: Mapping[str, Any]) -> dict[str, Any]:
    """Fill all of backbone from a .safetensors or .pth file; tells sha256, loaded, ignored (names) and text (one line).

    here: model, settings and input of the backbone, to be told beside those that a file of ours was saved with.
    """
    own = backbone.state_dict()
    state = named_tensors(read_weights(path), own, path)
    loaded = [k for k in own if k in state and state[k].shape == own[k].shape]
    missing = [k for k in own if k not in state and not k.endswith(".num_batches_tracked")]  # torchvision's files have no counters
    other = [f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in own if k in state and k not in loaded]
    ignored = [k for k in state if k not in own]
    ours = {_part(k) for k in own}
    foreign = [k for k in ignored if missing or _part(k) in ours]  # a file of a deeper model would fill a shallower one
    saved = about(path)
    settings = _differing(saved["settings"], here["settings"]) if saved else []
    told = {"missing": missing, "shapes differ:": other, "the file also has": foreign, "it was saved with": settings}
    wrong = "; ".join(f"{words} {_few(names)}" for words, names in told.items() if names)
    if wrong and saved:
        wrong += f"; it was saved from {_called(saved)}, and this is {_called(here)}"
    if wrong:
        raise ConfigError(
            f"model.init={path} does not fit this backbone (it fills {len(loaded)} of {len(own)} tensors; {wrong}); "
            "give a file saved from this model at this image size, or choose the model it was saved from"
        )
    backbone.load_state_dict({k: state[k] for k in loaded}, strict=False)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    named = ignored[:NAMED] + [f"and {len(ignored) - NAMED} more"] * (len(ignored) > NAMED)
    text = f"weights: {len(loaded)} tensors from {path.name}" + (f" ({_called(saved)}, step {saved['step']})" if saved else "")
    text += f", ignoring {_few(ignored)}" if ignored else ""
    return {"sha256": sha256, "loaded": len(loaded), "ignored": named, "text": text}


def named_tensors(state: Mapping[Any, Any], own: Collection[str], path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names in the backbone: out of containers, without wrappers' prefixes."""
    for name in ("state_dict", "model"):
        if isinstance(state.get(name), Mapping):
            state = state[name]
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        name = str(key)
        while name not in own and name.startswith(PREFIXES):
            name = name.partition(".")[2]
        if name in found:
            raise ConfigError(f"model.init={path} holds {name} twice, under several of {', '.join(PREFIXES)}; give a file of one model")
        found[name] = value
    return found


def about(path: Path) -> dict[str, Any]:
    """What a file of ours says of itself; empty for any other."""
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get(ABOUT, "{}"))


def _differing(saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What the file's model had otherwise; a setting that only one of them has is of another architecture, whose tensors tell."""
    return [f"model.{k}={said(saved[k])}" for k in SHAPELESS if k in saved and k in here and saved[k] != here[k]]


def _called(backbone: Mapping[str, Any]) -> str:
    first, *rest = backbone["input"]
    return f"{backbone['model']} at {' x '.join(map(str, (*rest, first)))}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _part(name: str) -> str:
    """The first part of a tensor's name; all numbers, the layers of an nn.Sequential, count as one part."""
    first = name.partition(".")[0]
    return "0" if first.isdigit() else first


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
