"""Hydra's launchers and sweepers: extras that may be missing."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

EXTRAS = {"joblib": "joblib", "submitit": "slurm", "ray": "ray", "optuna": "tune"}  # launcher or sweeper -> extra


def give_way(ours: Mapping[str, Sequence[str]]) -> None:
    """Plugins register a config by their name; Hydra would warn on each use of ours of the same name."""
    from hydra.core.config_store import ConfigStore

    registered = ConfigStore.instance().repo["hydra"]
    for kind, names in ours.items():
        for name in names:
            registered[kind].pop(f"{name}.yaml", None)


def problems(kind: str, node: Any) -> list[str]:
    """What a launcher or sweeper needs and this machine has not, told before the sweep begins."""
    package, _, what = str(node.get("_target_")).rpartition(".")
    name = next((n for n in EXTRAS if f".hydra_{n}_" in package), None)
    if name is None:
        return []
    try:
        importlib.import_module(package)
    except ImportError as error:
        return [f"the {kind} {name} cannot be loaded ({error}); install it with pip install 'cl-bench[{EXTRAS[name]}]'"]
    if what == "SlurmLauncher" and shutil.which("srun") is None:
        return ["hydra/launcher=submitit_slurm: there is no Slurm on this machine (no srun); start it on a login node, or use joblib"]
    return []
