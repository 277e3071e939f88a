"""What the command line sets: which keys and choices there are, and the mistakes in one override each."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_bench.mistakes import first_line, nearest, said

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
GROUPS = ("scenario", "data", "model", "objective", "strategy", "view", "train", "probe", "experiment", "tuned")
KNOWN = (*GROUPS, "seed", "tag", "name", "folder", "data_root", "look", "runtime")
FOLLOW = ("name", "folder")  # from what else is set
INTERNAL = ("hydra", *FOLLOW)  # not listed among the settings
FREE = ("hydra", "strategy", "probe", "view", "experiment", "tuned")  # where ~key may remove a part
EMPTY = ("experiment", "tuned")  # choices that leave no key of their own, and that may be null


def choices(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """Names in a config group, as typed after `group=`."""
    names = {
        str(file.relative_to(folder / group).with_suffix(""))
        for folder in (CONF, *folders)
        if (folder / group).is_dir()
        for file in (folder / group).rglob("*.yaml")
    }
    return sorted(names)


def composed(job: Sequence[str], wrong: list[str]) -> DictConfig | None:
    """The configuration of a job; what it cannot take is told in `wrong` and left out."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    kept = list(job)
    while True:
        try:
            return compose("config", overrides=kept, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            at = _blame(kept, error)
            if at is None:
                wrong.append(first_line(error))
                return None
            blamed = kept.pop(at)
            wrong.append(_explain(blamed, error, [line for line in kept if line.partition("=")[0] in GROUPS or line.startswith("hydra/")]))


def changed(config: DictConfig | None, line: str) -> DictConfig | None:
    """config with another value of a setting: composing anew takes ten times as long. None if it takes that."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key = line.partition("=")[0]
    if config is None or "/" in key or key.startswith(("+", "~")) or key in GROUPS:
        return None
    copied = copy.deepcopy(config)
    try:
        OmegaConf.update(copied, key, OverridesParser.create().parse_override(line).value(), merge=False)
    except OmegaConfBaseException:
        return None
    return copied


def own_sweep(fixed: Sequence[str], given: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The first of each setting that a preset's own sweep varies, unless the command line gives it."""
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        params = compose("config", overrides=list(fixed), return_hydra_config=True).hydra.sweeper.params or {}
        lines = [f"{key}={params[key]!s}" for key in params if key not in given]
    except (HydraException, OmegaConfBaseException, ValueError):
        return []  # told where every mistake is
    return spread(OverridesParser.create().parse_overrides(lines), folders)[0]


def spread(overrides: Sequence[Any], folders: Sequence[Path]) -> tuple[list[str], list[tuple[int, str]], list[str]]:
    """(one value of each setting, (place among them, another value), mistakes told without composing)."""
    fixed: list[str] = []
    varied: list[tuple[int, str]] = []
    wrong: list[str] = []
    for override in overrides:
        misused = _misused(override)
        unknown = [] if override.is_delete() else _unknown(override.key_or_group, _values(override), folders)
        wrong += [misused] if misused else unknown
        if misused or unknown:
            continue
        line = str(override.input_line)
        first, *others = [line.partition("=")[0] + "=" + v for v in _values(override)] if override.is_sweep_override() else [line]
        fixed.append(first)
        varied += [(len(fixed) - 1, other) for other in others]
    return fixed, varied, wrong


def _misused(override: Any) -> str | None:
    """What is wrong with how a setting is addressed, if anything."""
    key, line = override.key_or_group, str(override.input_line)
    if not key:
        return f"{line} names no setting; write key=value"
    if key.partition(".")[0] in FOLLOW:
        return f"{line}: {key} follows from the other settings; leave it out, or give tag=<name>"
    if override.is_delete() and key.partition(".")[0] not in FREE:
        return f"{line}: settings cannot be removed; give another value, or null where it is allowed"
    if override.is_add() and not override.is_force_add() and (key in KNOWN or ("." not in key and "/" not in key)):
        return f"{line}: + is for new keys inside of a group; {key} {'is there: leave out the +' if key in KNOWN else 'is none'}"
    if override.is_sweep_override() and not _values(override):
        return f"{line} gives no value; list some, separated by commas"
    return None


def _values(override: Any) -> list[str]:
    """As typed; of an interval or a range its two ends."""
    value = override.value()
    if override.is_interval_sweep():
        return [str(value.start), str(value.end)]
    if override.is_sweep_override():
        found = [str(v) for v in override.sweep_string_iterator()]
        return found[:: max(1, len(found) - 1)] if override.is_range_sweep() else found
    return [str(said(v)) for v in (value if isinstance(value, list) else [value])]


def _unknown(key: str, values: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Values that a group does not have."""
    from hydra.core.global_hydra import GlobalHydra

    allowed = choices(key, folders) if key in GROUPS else []
    if key.startswith("hydra/"):
        allowed = GlobalHydra.instance().config_loader().get_group_options(key)
    empty = ("null",) if key in EMPTY else ()
    return [f"{key}={v} is not known; {nearest(v, allowed)}" for v in values if v not in (*allowed, *empty)] if allowed else []


def _blame(job: list[str], error: Exception) -> int | None:
    """Which override an error of Hydra's is about: the one with the longest key that it names."""
    first, text = str(error).split("\n")[0], str(error) + "\n"
    keys = [line.lstrip("+~").partition("=")[0] for line in job]
    named = [
        i
        for i, key in enumerate(keys)
        if f"'{key}'" in text or re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", first) or f"full_key: {key}\n" in text
    ]
    if not named and type(error) is ValueError:  # OmegaConf's: a word where a list wants a number
        named = [i for i, key in enumerate(keys) if f"'{key.rpartition('.')[2]}'" in text]
    return max(named, key=lambda i: len(keys[i]), default=None)


def _explain(override: str, error: Exception, rest: list[str]) -> str:
    """An unknown key with its nearest neighbours; rest chooses the groups."""
    from hydra import compose
    from omegaconf import OmegaConf

    if override.startswith("+"):
        return f"{override}: {first_line(error)}"
    key = override.lstrip("+~").partition("=")[0]
    parent, _, last = key.rpartition(".")
    config = compose("config", overrides=rest, return_hydra_config=True)
    while parent and not _has_keys(config, parent):
        parent, _, last = parent.rpartition(".")
    node: DictConfig = OmegaConf.select(config, parent) if parent else config
    names = [f"{parent}.{k!s}" if parent else str(k) for k in node if not str(k).startswith("_") and k not in INTERNAL]
    names += [] if parent else EMPTY
    full = f"{parent}.{last}" if parent else last
    if full in names:
        return f"{override}: {first_line(error)}"
    return f"{override}: there is no setting {full}; {nearest(full, names)}"


def _has_keys(config: DictConfig, path: str) -> bool:
    from omegaconf import DictConfig, OmegaConf

    try:
        return isinstance(OmegaConf.select(config, path, throw_on_resolution_failure=False), DictConfig)
    except ValueError:  # a word where a list wants a number
        return False
