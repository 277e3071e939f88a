"""Which point of a segment: searches over sums of normalised losses, and the rows that they leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cl_bench.interpolation.normalise import scale
from cl_bench.interpolation.search import Settings, search
from cl_bench.strategies.segment import Held, Segment

Row = dict[str, Any]


class Choice:
    """Decisions on one segment; they share its measurements, and their rows hold every one."""

    def __init__(
        self,
        segment: Segment,
        valid: Mapping[str, Held],
        test: Mapping[str, Held],
        settings: Settings,
        how: str,
        normaliser: str,
        slopes: bool,
    ):
        self.segment, self.valid, self.test = segment, valid, test
        self.settings, self.how, self.normaliser, self.slopes = settings, how, normaliser, slopes
        self.decisions: list[Row] = []
        self.seconds: list[Row] = []

    def scale(self, name: str) -> float:
        held = self.valid[name]
        start = self.segment.measure(held, 0.0)[0] if self.normaliser in ("initial", "range") else 0.0
        end = self.segment.measure(held, 1.0)[0] if self.normaliser == "range" else 0.0
        return scale(self.normaliser, start, end, int((~held.closed).sum()))

    def mean(self, names: Sequence[str], a: float, of: int, scales: Mapping[str, float]) -> float:
        return sum(self.segment.measure(self.valid[name], a)[of] / scales[name] for name in names) / len(names)

    def decide(self, kept: Sequence[str], new: Sequence[str]) -> float:
        """The coefficient with the least mean over kept plus mean over new; old and new weigh the same, however many they are."""
        names = [*kept, *new]
        plain, scales = dict.fromkeys(names, 1.0), {name: self.scale(name) for name in names}

        def loss(a: float) -> float:
            return self.mean(kept, a, 0, scales) + self.mean(new, a, 0, scales)

        def inaccuracy(a: float) -> float:
            return -(self.mean(kept, a, 1, plain) + self.mean(new, a, 1, plain)) / 2

        found = search(self.how, inaccuracy if self.how == "accuracy" else loss, self.settings)
        told = {"kept": "+".join(kept), "new": "+".join(new)}
        self.decisions.append(
            {
                **told,
                "search": self.how,
                "normaliser": self.normaliser,
                "scales": " ".join(repr(scales[name]) for name in names),
                "coefficient": found.coefficient,
                "value": loss(found.coefficient),
                "evaluations": found.evaluations,
                "points": " ".join(map(repr, sorted(found.points))),
                "quasiconvex": found.quasiconvex,
                **self.slope(kept, new),
                "note": found.note,
            }
        )
        spent = sum(self.segment.seconds[name, "valid", a] for name in names for a in found.points)
        self.seconds.append({**told, "seconds": spent})
        return found.coefficient

    def slope(self, kept: Sequence[str], new: Sequence[str]) -> Row:
        """What gradients tell of transfer to the one task that is kept; of several nothing."""
        columns = ("gradient_similarity", "gradient_norm", "distance")
        if not self.slopes or len(kept) + len(new) > 2:
            return dict.fromkeys(columns, "")
        held = self.valid[kept[0]]
        self.segment.measure(held, 0.0)  # transfer is told from there
        return dict(zip(columns, self.segment.slope(held), strict=True))

    def look_around(self, kept: Sequence[str], new: Sequence[str], count: int) -> None:
        """For curves and tables alone: all tasks on a grid, and at each decision's point those it was about; tests too."""
        low, high = self.settings.low, self.settings.high
        grid = [low + (high - low) * (k / (count - 1)) for k in range(count)]
        wanted = {(a, name) for a in grid for name in (*kept, *new)}
        wanted |= {(row["coefficient"], name) for row in self.decisions for side in ("kept", "new") for name in row[side].split("+")}
        for a, name in sorted(wanted):
            self.segment.measure(self.valid[name], a)
            if name in self.test:
                self.segment.measure(self.test[name], a)

    def rows(self, kept: Sequence[str], new: Sequence[str]) -> dict[str, list[Row]]:
        """Every measurement, task by task along the segment, and every decision."""
        found = self.segment.measured
        segments: list[Row] = [
            {
                "on": name,
                "role": "kept" if name in kept else "new",
                "part": part,
                "coefficient": a,
                "loss": found[name, part, a][0],
                "accuracy": found[name, part, a][1],
            }
            for name, part, a in sorted(found, key=lambda key: ([*kept, *new].index(key[0]), key[1], key[2]))
        ]
        return {"segments.csv": segments, "searches.csv": self.decisions, "seconds.json": self.seconds}
