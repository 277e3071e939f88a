"""Which prompts each test's images take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples, Stream
from cl_bench.folder import write
from cl_bench.probes.moment import WHOLE, Moment, MomentProbe, Row


class Prompts(MomentProbe):
    """Histogram over the pool of the prompts that each test takes (2112.08654, figure 3), its entropy, what tests share.

    prompt_entropy: of a test's shares p_m, in nats; prompt_overlap: sum_m min(p_m, r_m), mean over pairs of tests. The counts stay in
    the run folder, probes/prompts_after<k>.csv: a row a test, a column a prompt.
    """

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        names = [name for name, _ in learner.network.get_submodule("backbone").named_modules()]
        self.layer = next((name for name in names if name.rpartition(".")[2] == "chosen"), "")
        if not self.layer:
            raise ConfigError(
                "probe=prompts reads which prompts are chosen, and this strategy chooses none; use strategy=l2p or dualprompt"
            )
        self.layers = (self.layer,)
        keys = learner.network.get_submodule("backbone").get_submodule(self.layer.rpartition(".")[0]).get_parameter("keys")
        self.size = len(keys)

    def __call__(self, moment: Moment) -> Iterator[Row]:
        self.said = []
        chosen = {held.on: held.features[self.layer].cpu() for held in moment.held}
        counts = {on: torch.bincount(ids.flatten(), minlength=self.size) for on, ids in chosen.items()}
        header = ",".join(["test", *map(str, range(self.size))])
        lines = [",".join([on, *map(str, row.tolist())]) for on, row in counts.items()]
        (moment.folder / "probes").mkdir(exist_ok=True)
        write(moment.folder / "probes" / f"prompts_after{moment.after}.csv", "\n".join([header, *lines]) + "\n")
        shares = {on: row.double() / row.sum() for on, row in counts.items()}
        for on, p in shares.items():
            yield moment.row(on, "prompt_entropy", entropy(p))
        every = torch.stack(list(shares.values()))
        used = int((every.sum(0) > 0).sum())
        yield moment.row(WHOLE, "prompt_entropy", entropy(every.mean(0)))
        yield moment.row(WHOLE, "prompts_used", used)
        if len(every) > 1:
            shared = torch.minimum(every[:, None], every[None]).sum(2)
            pairs = ~torch.eye(len(every), dtype=torch.bool)
            yield moment.row(WHOLE, "prompt_overlap", shared[pairs].mean())
        top = next(iter(chosen.values())).shape[1]
        if used == top < self.size and len(every) > 1:
            self.said = [f"keys have collapsed: every image of every test takes the same {top} of {self.size} prompts"]


def entropy(shares: Tensor) -> Tensor:
    """Nats."""
    return torch.special.entr(shares).sum()
