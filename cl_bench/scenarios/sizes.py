"""How many classes each task gets. No torch: mistakes are told before it is imported."""

from __future__ import annotations

from cl_bench.core.errors import ConfigError


def task_sizes(num_classes: int, tasks: int | list[int]) -> list[int]:
    """tasks=5 cuts evenly; tasks=[4,3,3] as told."""
    if isinstance(tasks, int):
        if tasks < 1 or num_classes % tasks:
            divisors = [n for n in range(1, num_classes + 1) if num_classes % n == 0]
            raise ConfigError(
                f"scenario.tasks={tasks} does not divide {num_classes} classes; "
                f"allowed: {divisors}, or a list of sizes that add up to {num_classes}"
            )
        return [num_classes // tasks] * tasks
    if sum(tasks) != num_classes or min(tasks, default=0) < 1:
        raise ConfigError(
            f"scenario.tasks={tasks} adds up to {sum(tasks)}, the data has {num_classes} classes; give sizes that add up to {num_classes}"
        )
    return list(tasks)
