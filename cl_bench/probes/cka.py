"""How far the representation of a task has moved since it was learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from safetensors.torch import load_file, save_file

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples, Stream
from cl_bench.probes.moment import PENULTIMATE, WHOLE, Held, Moment, MomentProbe, Row, widths
from cl_bench.probes.similarity import cka, constant, subspace_similarity


class CKA(MomentProbe):
    """Linear CKA (1905.00414) and SubspaceSim_k (2007.07400) of a test's features: when it was learned, and now.

    The features of the first moment stay in the run folder, probes/<test>.safetensors, those of the last
    in <test>.last.safetensors, for scripts/compare_runs.py.
    Both are undefined where features do not differ, of dead units.
    layers: modules of the backbone beside the penultimate features, each the mean over tokens or pixels.
    """

    def __init__(self, *, directions: Count, layers: list[str]):
        self.directions, self.layers = directions, layers

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        width = min(widths(learner, next(iter(held_out.values())), self.layers).values())
        most = min(width, *(len(data) - 1 for data in held_out.values()))
        if self.directions > most:
            raise ConfigError(
                f"probe.cka.directions={self.directions} is not allowed; features of width {width} and at least "
                f"{min(map(len, held_out.values()))} held-out examples a test have {most}: give at most that"
            )

    def __call__(self, moment: Moment) -> Iterator[Row]:
        found: dict[str, list[float]] = {}
        dead: list[str] = []
        for held in moment.held:
            file = moment.folder / "probes" / f"{quote(held.on, safe=' ')}.safetensors"
            if moment.after == held.learned:  # written anew by a run that is resumed before it: the same to the bit
                keep(held, self.layers, file)
            if moment.last:
                keep(held, self.layers, file.with_name(f"{file.stem}.last.safetensors"))
            if moment.after > held.learned:
                for metric, value in self.compare(held, file, dead).items():
                    found.setdefault(metric, []).append(value)
                    yield moment.row(held.on, metric, value)
        for metric, values in found.items():
            yield moment.row(WHOLE, metric, sum(values) / len(values))
        words = f"cka and subspace similarity of {', '.join(dead)} are undefined (nan): their features are the same for every example"
        self.said = [words] if dead else []

    def compare(self, held: Held, file: Path, dead: list[str]) -> dict[str, float]:
        """The figures of one test; what has none is added to dead."""
        before, found = load_file(file, device=str(held.y.device)), {}
        for name in (PENULTIMATE, *self.layers):
            layer = name or "penultimate"
            x, y = before[layer].double(), held.features[name].double()
            end = f"_{name}" if name else ""
            alike = [when for when, z in {"when learned": x, "now": y}.items() if constant(z)]
            dead += [f"{held.on} ({layer}, {' and '.join(alike)})"] if alike else []
            found[f"cka{end}"] = math.nan if alike else float(cka(x, y))
            found[f"subspace_similarity{end}"] = math.nan if alike else float(subspace_similarity(x, y, self.directions))
        return found


def keep(held: Held, layers: Sequence[str], file: Path) -> None:
    """A kill leaves the old file or the new one."""
    file.parent.mkdir(exist_ok=True)
    tensors = {name or "penultimate": held.features[name].cpu().contiguous().clone() for name in (PENULTIMATE, *layers)}
    partial = file.with_name(file.name + ".partial")
    save_file({"y": held.y.cpu().clone(), **tensors}, partial)
    partial.replace(file)
