"""What one needs to know to believe a run's numbers."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

import cl_bench
from cl_bench.core.types import Stream

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "lightning-fabric", "hydra-core")


def provenance(
    data: Mapping[str, str], stream: Stream, weights: Mapping[str, Any], parameters: int, costs: Mapping[str, Any], fabric: Fabric
) -> dict[str, Any]:
    """The contents of provenance.json."""
    return {
        "command": sys.argv[1:],
        "cl_bench": cl_bench.__version__,
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "device": torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else fabric.device.type,
        "cpu": cpu(),
        "threads": torch.get_num_threads(),
        "data": dict(data),
        "stream": {"shows": stream.kind, "input_shape": list(stream.input_shape), **subclasses(stream)},
        "weights": {k: weights[k] for k in ("init", "sha256")},
        "weights_loaded": weights["loaded"],
        "weights_ignored": weights["ignored"],
        "parameters": parameters,
        **costs,
    }


def subclasses(stream: Stream) -> dict[str, Any]:
    """What each label stands for in each task, and the hash of it; nothing where a label is a class of the data."""
    if not stream.subclasses:
        return {}
    found = {task: [list(classes) for classes in behind] for task, behind in stream.subclasses.items()}
    return {"subclasses": found, "subclasses_sha256": hashlib.sha256(json.dumps(found).encode()).hexdigest()}


def cpu() -> str:
    """The processor's model, as far as the system tells."""
    told = Path("/proc/cpuinfo")  # Linux; platform knows no model there
    found = re.search(r"^model name\s*:\s*(.+)$", told.read_text(), re.MULTILINE) if told.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def commit() -> str | None:
    """Of the checkout that runs, if it is one and git is there."""
    checkout = Path(cl_bench.__file__).parents[1]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    described = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=checkout, capture_output=True, text=True)
    return described.stdout.strip() or None
