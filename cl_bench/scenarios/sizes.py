"""Which classes, or what else, each task gets. No torch: mistakes are told before it is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import nearest


def task_sizes(count: int, tasks: int | list[int], setting: str, what: str = "classes") -> list[int]:
    """tasks=5 cuts evenly; tasks=[4,3,3] as told."""
    if isinstance(tasks, int):
        if tasks < 1 or count % tasks:
            divisors = [n for n in range(1, count + 1) if count % n == 0]
            raise ConfigError(
                f"{setting}={tasks} does not divide {count} {what}; allowed: {divisors}, or a list of sizes that add up to {count}"
            )
        return [count // tasks] * tasks
    if sum(tasks) != count or min(tasks, default=0) < 1:
        raise ConfigError(f"{setting}={tasks} adds up to {sum(tasks)}, but there are {count} {what}; give sizes that add up to {count}")
    return list(tasks)


def check_kinds(kinds: Sequence[str], known: Sequence[str]) -> None:
    """Known names, none twice: tasks are called by them."""
    wrong = [kind for kind in kinds if kind not in known]
    if wrong:
        raise ConfigError(f"scenario.kinds: {wrong[0]} is not known; {nearest(str(wrong[0]), sorted(known))}")
    if len(set(kinds)) < len(kinds) or not kinds:
        raise ConfigError(f"scenario.kinds={list(kinds)}: give each task a kind of its own, one or more of {', '.join(sorted(known))}")


def check_groups(groups: Sequence[Sequence[int]], num_classes: int) -> None:
    """Lists of one length, of the data's classes, none twice."""
    sizes = sorted({len(group) for group in groups})
    counts = Counter(c for group in groups for c in group)
    twice = [c for c, n in counts.items() if n > 1]
    outside = [c for c in counts if not 0 <= c < num_classes]
    if len(sizes) != 1 or sizes == [0] or twice or outside:
        wrong = f"class {twice[0]} is in two of them" if twice else f"there is no class {outside[0]}" if outside else f"sizes {sizes}"
        raise ConfigError(
            f"scenario.groups: {wrong}; give each label a list, all of one length, of classes 0 to {num_classes - 1}, none twice"
        )
