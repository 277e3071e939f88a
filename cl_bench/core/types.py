"""The nouns: frozen values that walk through the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

LINES = 20  # of experiences in a printed stream: a task-free one has hundreds


@dataclass(frozen=True)
class Examples:
    """Raw inputs and labels. raw: uint8 [N, C, H, W], or of text tokens [N, L + 1], uint8 or int32; y: int64 [N], of text 0."""

    raw: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Examples:
        return Examples(self.raw[index], self.y[index])

    def to(self, device: torch.device) -> Examples:
        return Examples(self.raw.to(device), self.y.to(device))

    @staticmethod
    def concatenate(parts: Sequence[Examples]) -> Examples:
        return Examples(torch.cat([part.raw for part in parts]), torch.cat([part.y for part in parts]))


@dataclass(frozen=True)
class Batch:
    """One step's examples. allowed: bool [C] or [B, C], the logits that may win; None allows all.

    task: the experience they came in, int or int64 [B].
    """

    raw: Tensor
    y: Tensor
    task: int | Tensor
    allowed: Tensor | None = None


@dataclass(frozen=True)
class Experience:
    """What the learner sees between two looks at the clock. announced=False hides its boundary."""

    index: int
    name: str
    train: Examples
    classes: tuple[int, ...]
    valid: Examples | None = None
    announced: bool = True
    looked: bool = True  # whether it ends with an evaluation: short ones of a task-free stream are too many
    merges: int = 1  # how many experiences of the stream it stands for: joint trains as many steps as all of them


@dataclass(frozen=True)
class Test:
    """Held-out examples of one task, and the classes among which a told task chooses.

    task: the experience from which on it counts as learned; valid: where no one experience holds out its examples.
    """

    data: Examples
    classes: tuple[int, ...]
    task: int
    valid: Examples | None = None
    __test__ = False  # pytest collects nothing here


@dataclass(frozen=True)
class Stream:
    """Experiences in order and tests, of a task or of the whole; num_classes is known before training.

    subclasses: task -> the data's classes behind each label, where labels stand for more than one.
    class_names: data set -> names of its classes by label, where it has any.
    """

    experiences: Sequence[Experience]
    tests: Mapping[str, Test]
    num_classes: int
    subclasses: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[C, H, W] of the raw inputs, [L + 1] of text."""
        return tuple(map(int, self.experiences[0].train.raw.shape[1:]))

    @property
    def is_text(self) -> bool:
        return len(self.input_shape) == 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the network's answer to one input: [num_classes], of text [L, num_classes]."""
        return (self.input_shape[0] - 1, self.num_classes) if self.is_text else (self.num_classes,)

    @property
    def kind(self) -> str:
        """Which evaluation it shows."""
        if not all(e.announced for e in self.experiences):
            return "task-free, class-incremental"
        if len(self.experiences) == len(self.tests) == 1:
            return "one task"
        sets = [set(test.classes) for test in self.tests.values()]
        if all(classes == sets[0] for classes in sets):
            return "domain-incremental"
        disjoint = sum(map(len, sets)) == len(set().union(*sets))
        return "class- and task-incremental" if disjoint else "mixed: some classes come back"

    def seen(self, index: int) -> tuple[int, ...]:
        """All classes of the experiences up to and including index."""
        return tuple(sorted({c for e in self.experiences if e.index <= index for c in e.classes}))

    def merged(self) -> Stream:
        """Everything at once, the upper bound; it stands where the last experience stood."""
        valid = [e.valid for e in self.experiences if e.valid is not None]
        last = self.experiences[-1]
        whole = Experience(
            index=last.index,
            name="joint",
            train=Examples.concatenate([e.train for e in self.experiences]),
            classes=self.seen(last.index),
            merges=len(self.experiences),
            valid=Examples.concatenate(valid) if valid else None,
        )
        return replace(self, experiences=(whole,))

    def __str__(self) -> str:
        lines = [f"stream of {len(self.experiences)} experiences, {self.num_classes} classes; {self.kind}"]
        for e in self.experiences:
            held = 0 if e.valid is None else len(e.valid)
            hidden = "" if e.announced else " (not announced)"
            lines.append(f"  {e.index} {e.name}{hidden}: {_ranges(e.classes)}; {len(e.train)} train, {held} valid")
        if len(lines) > LINES:
            lines[1 + LINES // 2 : -(LINES // 2)] = ["  ..."]
        for name, test in self.tests.items():
            chosen = "" if test.valid is None else f", {len(test.valid)} valid"
            lines.append(f"  test {name}: {_ranges(test.classes)}; {len(test.data)} test{chosen}")
        for name, behind in self.subclasses.items():
            lines.append(f"  subclasses of {name}: " + ", ".join(f"{k} <- {'+'.join(map(str, c))}" for k, c in enumerate(behind)))
        return "\n".join(lines)


@dataclass(frozen=True)
class Output:
    """What an objective or a strategy says of a batch; outputs is what a memory would remember, views what the network saw."""

    loss: Tensor
    outputs: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    views: Sequence[Tensor] = ()

    def plus(self, terms: Mapping[str, Tensor]) -> Output:
        if not terms:
            return self
        return replace(self, loss=self.loss + sum(terms.values()), parts={**self.parts, **terms})


def _ranges(classes: Sequence[int]) -> str:
    """(0, 1, 2, 5) -> 'classes 0-2,5'."""
    runs: list[list[int]] = []
    for c in sorted(classes):
        if runs and runs[-1][1] == c - 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    return "classes " + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
