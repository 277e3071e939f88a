"""Which features carry over to data never seen: nearest neighbours, and fine-tuning, on other data sets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Positive
from cl_bench.core.learner import Learner
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Stream
from cl_bench.data.resident import Dataset
from cl_bench.probes.knn import votes
from cl_bench.probes.moment import WHOLE, Moment, MomentProbe, Row
from cl_bench.scenarios.sequence import fit


class Carry(MomentProbe):
    """A probe of other data sets, brought to the stream's channels and size; at the end of the stream alone."""

    datasets: Mapping[str, Callable[[], Dataset]]

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        self.found = {}
        for name, make in self.datasets.items():
            data = make()
            if data.train.raw.ndim != 4 or data.train.raw.shape[1] > stream.input_shape[0]:
                raise ConfigError(
                    f"the probe's data set {name} has images {list(data.train.raw.shape[1:])} and the stream {list(stream.input_shape)}: "
                    "colours cannot be left out; name grey data sets, or use data in colour"
                )
            parts = [Examples(fit(part.raw, stream.input_shape), part.y) for part in (data.train, data.test)]
            self.found[name] = (parts[0], parts[1], data.num_classes)


class OutOfDistribution(Carry):
    """KNN (1805.01978) on the whole of other data sets as one task each: ood_<name>, after the last experience."""

    def __init__(self, *, datasets: Mapping[str, Callable[[], Dataset]], k: Count, temperature: Positive, chunk: Count):
        self.datasets, self.k, self.temperature, self.chunk = datasets, k, temperature, chunk

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        super().prepare(learner, stream, held_out)
        for name, (train, _, _) in self.found.items():
            if self.k > len(train):
                raise ConfigError(f"probe.ood.k={self.k} is above the {len(train)} training images of {name}; give {len(train)} or less")

    def __call__(self, moment: Moment) -> Iterator[Row]:
        for name, (train, test, count) in self.found.items() if moment.last else ():
            bank, queries = F.normalize(moment.features(f"{name} train", train)), moment.features(f"{name} test", test)
            labels = train.y.to(bank.device)
            scores = votes(queries, bank, labels, count, self.k, self.temperature, self.chunk)
            yield moment.row(WHOLE, f"ood_{name}", (scores.argmax(1).cpu() == test.y).double().mean())


class FineTune(Carry):
    """A copy of the backbone and a new head learn another data set: finetune_<name>, accuracy on its test; the run stays as it is."""

    def __init__(self, *, datasets: Mapping[str, Callable[[], Dataset]], epochs: Count, batch_size: Count, lr: Positive, momentum: float):
        self.datasets, self.epochs, self.batch_size, self.lr, self.momentum = datasets, epochs, batch_size, lr, momentum

    def __call__(self, moment: Moment) -> Iterator[Row]:
        for name, (train, test, count) in self.found.items() if moment.last else ():
            yield moment.row(WHOLE, f"finetune_{name}", self.score(moment, train, test, count))

    def score(self, moment: Moment, train: Examples, test: Examples, count: int) -> float:
        learner = moment.learner
        assert learner is not None
        device, rng = learner.device, generator(moment.seed, "finetune")
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng([]):
            torch.manual_seed(int(torch.randint(1 << 62, (), generator=rng)))
            backbone = copy.deepcopy(learner.network.get_submodule("backbone"))
            one = learner.view(train.raw[:1].to(device), None)
            with torch.no_grad():
                dim = backbone.eval()(one).shape[1]
            network = nn.Sequential(backbone, nn.Linear(dim, count)).to(one.device, one.dtype).train()
            solver = torch.optim.SGD(network.parameters(), lr=self.lr, momentum=self.momentum)
            for _ in range(self.epochs):
                for index in torch.randperm(len(train), generator=rng).split(self.batch_size):
                    if len(index) > 1:  # batch norm cannot take one
                        x = learner.view(train.raw[index].to(device), None)
                        solver.zero_grad()
                        F.cross_entropy(network(x), train.y[index].to(device)).backward()
                        solver.step()
            network.eval()
            with torch.no_grad():
                answers = [network(learner.view(raw.to(device), None)).argmax(1).cpu() for raw in test.raw.split(self.batch_size)]
        return float((torch.cat(answers) == test.y).double().mean())
