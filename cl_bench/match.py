"""Models compared at equal accuracy on the first task: held-out accuracy noted at every look, and a first task that ends early."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cl_bench.core.errors import ConfigError
from cl_bench.core.learner import Learner
from cl_bench.core.types import Experience, Stream
from cl_bench.probes.accuracy import Accuracy
from cl_bench.probes.readout import Readout, read

METRIC = "valid_task_il"  # accuracy on held-out training examples among the task's own classes: what choices are made by


class Match:
    """settings: the config's `match`, or nothing; a run: its held-out accuracy on its first task, when learned, is to be reached."""

    def __init__(self, settings: Mapping[str, Any] | None, batch_size: int):
        self.noted, self.batch_size = settings is not None, batch_size
        given = settings or {"run": None, "every": 0}
        self.every = given["every"]
        self.target = None if given["run"] is None else target(Path(given["run"]))
        self.found = math.nan  # at the last look within the first experience

    def due(self, learner: Learner, experience: Experience, step: int) -> bool:
        """Whether training of the first experience ends before this step."""
        if self.target is None or learner.number or step % self.every:
            return False
        self.found = self._accuracy(learner, experience)
        return self.found >= self.target

    def told(self, learner: Learner, experience: Experience, step: int) -> str | None:
        """Where the first experience ended, and whether it came to what was to be reached."""
        if self.target is None or learner.number or math.isnan(self.found):
            return None
        words = "reached" if self.found >= self.target else "not reached"
        return f"{experience.name} ends at step {step}: held-out accuracy {self.found:.4f}; {self.target:.4f} of match.run {words}"

    def rows(self, learner: Learner, stream: Stream, after: int) -> Iterator[dict[str, Any]]:
        """Held-out accuracy of what has been learned."""
        for experience in stream.experiences if self.noted else ():
            if experience.index <= after:
                yield {"after": after, "on": experience.name, "metric": METRIC, "value": self._accuracy(learner, experience)}

    def _accuracy(self, learner: Learner, experience: Experience) -> float:
        assert experience.valid is not None  # checks.py: scenario.valid_fraction
        features, logits = read(learner, experience.valid, self.batch_size)
        y = experience.valid.y.to(learner.device)
        readout = Readout(experience.index, experience.name, experience.index, experience.classes, (), features, logits, y)
        return float(Accuracy.share(readout, experience.classes))


def target(run: Path) -> float:
    """Held-out accuracy of a finished run on its first task, when that was learned. A sweep may make it: so it is missed only here."""
    if not (run / "summary.csv").is_file():
        raise ConfigError(f"match.run={run} is no finished run; run that one first (row=scratch, at this rate, model and seed)")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(next(r["value"] for r in rows if r["metric"] == METRIC and r["after"] == 0))
