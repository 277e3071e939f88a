"""Whether features still use the room they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples, Stream
from cl_bench.objectives.pairs import effective_rank, spread
from cl_bench.probes.moment import PENULTIMATE, Moment, MomentProbe, Row


class Collapse(MomentProbe):
    """feature_spread (1 spread out, 0 collapsed; 2011.10566) and effective_rank (Roy and Vetterli 2007) of each test's features."""

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        """Takes all."""

    def __call__(self, moment: Moment) -> Iterator[Row]:
        for held in moment.held:
            yield moment.row(held.on, "feature_spread", spread(held.features[PENULTIMATE]))
            yield moment.row(held.on, "effective_rank", effective_rank(held.features[PENULTIMATE]))
