"""Backbones of a run, each in a file of its own: at chosen steps of the first experience, and at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cl_bench.core.errors import ConfigError
from cl_bench.core.learner import Learner
from cl_bench.folder import backbone_file
from cl_bench.models.weights_file import ABOUT


class Backbones:
    """wanted: runtime.save_backbone; about: what is written beside the tensors, for whoever starts from them."""

    def __init__(self, folder: Path, wanted: bool | Sequence[int], about: Mapping[str, Any], first: int, total: int):
        self.folder, self.about, self.total = folder, about, total
        self.at_end = bool(wanted)
        self.steps = frozenset(() if isinstance(wanted, bool) else wanted)
        late = sorted(step for step in self.steps if step > first)
        if late:
            raise ConfigError(
                f"runtime.save_backbone: there is no step {late[0]}, the first experience has {first}; "
                "leave it out, or raise train.steps or train.epochs"
            )

    def resume(self, done: int, step: int) -> None:
        """From `step` of the experience after `done`: what lies behind can be saved no more."""
        gone = [k for k in sorted(self.steps) if (done or k <= step) and not (self.folder / backbone_file(k)).exists()]
        if gone:
            raise ConfigError(
                f"runtime.save_backbone: {self.folder} is past step {gone[0]} and has no {backbone_file(gone[0])}; "
                "leave that step out, give this run a tag=<name> of its own, or delete the folder"
            )

    def save(self, learner: Learner, step: int) -> None:
        """After a step of the first experience."""
        self._write(learner, backbone_file(step), step)

    def finish(self, learner: Learner) -> None:
        """At the end, where any is wanted."""
        if self.at_end:
            self._write(learner, backbone_file(), self.total)

    def _write(self, learner: Learner, name: str, step: int) -> None:
        from safetensors.torch import save_file

        path = self.folder / name
        partial = path.with_name(path.name + ".partial")
        tensors = learner.network.get_submodule("backbone").state_dict()
        told = {ABOUT: json.dumps({**self.about, "step": step})}  # under one key: safetensors writes several in any order
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, metadata=told)
        partial.replace(path)
