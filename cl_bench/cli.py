"""The command line before anything heavy: help, and every mistake in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cl_bench import plugins
from cl_bench.checks import problems
from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import first_line, nearest, said

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
GROUPS = ("scenario", "data", "model", "objective", "strategy", "view", "train", "probe", "experiment", "tuned")
KNOWN = (*GROUPS, "seed", "tag", "name", "folder", "data_root", "look", "runtime")
INTERNAL = ("hydra", "name", "folder")  # of the top level, not for users to set
FREE = ("hydra", "strategy", "probe", "view", "experiment", "tuned")  # where ~key may remove a part
EMPTY = ("experiment", "tuned")  # choices that leave no key of their own, and that may be null

EXAMPLES = """\
python -m cl_bench                                              sequential MLP on split digits
python -m cl_bench strategy=ewc model=vit_b                     one choice per group
python -m cl_bench -m model=vit_xs,vit_s,vit_b strategy=sequential,ewc,er seed=0,1,2    a sweep
python -m cl_bench experiment=demo                              a whole comparison, with its table
python -m cl_bench.reports outputs --by model strategy          tables and plots of finished runs"""


def choices(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """Names in a config group, as typed after `group=`."""
    names = {
        str(file.relative_to(folder / group).with_suffix(""))
        for folder in (CONF, *folders)
        if (folder / group).is_dir()
        for file in (folder / group).rglob("*.yaml")
    }
    return sorted(names)


def _listed(names: Sequence[str]) -> str:
    """a, b, folder/{c, d}"""
    within: dict[str, list[str]] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        within.setdefault(folder, []).append(last)
    return ", ".join([*within.pop("", []), *(f"{folder}/{{{', '.join(rest)}}}" for folder, rest in within.items())])


def help_text(folders: Sequence[Path]) -> str:
    """Groups, choices, five commands."""
    lines = ["usage: python -m cl_bench [group=choice ...] [key.subkey=value ...] [-m a sweep]", "", "groups and choices:"]
    lines += [f"  {group:<11}{_listed(choices(group, folders))}" for group in GROUPS]
    lines += ["", "examples:", *(f"  {line}" for line in EXAMPLES.splitlines()), ""]
    lines += [
        "`--cfg job` prints the composed configuration; `--config-dir DIR` adds your own groups;",
        f"`hydra/launcher=joblib` runs a sweep in parallel ({', '.join(choices('hydra/launcher', folders))});",
        "`hydra/sweeper=optuna` searches for settings (conf/hydra/sweeper/optuna.yaml).",
    ]
    return "\n".join(lines)


def check(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """Compose as Hydra will and tell all mistakes at once; of a sweep, vary one setting at a time.

    Returns the arguments with options first, as Hydra reads them, and a sweep's folder.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.utils import get_args_parser
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    parsed = parser.parse_intermixed_args(list(arguments))
    ordered = [a for a in arguments if a not in parsed.overrides] + parsed.overrides
    if parsed.hydra_help or parsed.shell_completion:
        return ordered, None
    if parsed.config_path or parsed.config_name:
        raise ConfigError(
            "--config-path and --config-name would replace cl_bench's own configuration; add yours with --config-dir <folder>"
        )
    folders = [Path(parsed.config_dir)] if parsed.config_dir else []
    if folders and not folders[0].is_dir():
        raise ConfigError(f"--config-dir {parsed.config_dir} is no folder; give one that holds groups, such as <folder>/strategy/mine.yaml")
    from cl_bench.resolve import resolve

    with initialize_config_dir(str(CONF), version_base="1.3"):
        plugins.give_way({kind: choices(f"hydra/{kind}") for kind in ("launcher", "sweeper")})
        loader = GlobalHydra.instance().config_loader()
        for folder in folders:  # as hydra.main does, which then builds its loader
            loader.get_search_path().prepend("command-line", f"file://{folder.resolve()}", SearchPathQuery(provider="schema"))
        loader.repository.initialize_sources(loader.get_search_path())  # type: ignore[attr-defined]
        try:
            overrides = OverridesParser.create(config_loader=loader).parse_overrides(parsed.overrides)
            fixed, varied, wrong = _lines(overrides, folders)
        except HydraException as error:
            raise ConfigError(f"{first_line(error)}; write settings as key=value, quoting what the shell would change") from error
        sweep = None
        own = _own_sweep(fixed, [o.key_or_group for o in overrides], folders)
        fixed, varied = [*own, *fixed], [(at + len(own), other) for at, other in varied]
        for number, job in enumerate([fixed] + [[*fixed[:at], line, *fixed[at + 1 :]] for at, line in varied]):
            kept = list(job)
            config = None
            while config is None:
                try:
                    config = compose("config", overrides=kept, return_hydra_config=True)
                except (HydraException, OmegaConfBaseException) as error:
                    at = _blame(kept, error)
                    if at is None:
                        wrong.append(first_line(error))
                        break
                    wrong.append(
                        _explain(
                            kept.pop(at), error, [line for line in kept if line.partition("=")[0] in GROUPS or line.startswith("hydra/")]
                        )
                    )
            if config is None:
                continue
            if number == 0 and (parsed.multirun or config.hydra.mode == RunMode.MULTIRUN):
                wrong += plugins.problems("launcher", config.hydra.launcher) + plugins.problems("sweeper", config.hydra.sweeper)
                sweep = Path(str(config.runtime.outputs)) / ".sweep" if isinstance(config.runtime.get("outputs"), str) else None
            elif number == 1 and sweep is None and not parsed.cfg:
                several = next(str(o.input_line) for o in overrides if o.is_sweep_override())
                wrong.append(f"{several} gives several values; add -m to run one job for each, or give one value (a list is [a,b])")
            try:
                HydraConfig.instance().set_config(config)  # it knows the choices' names, and places can follow from them
                wrong += problems(resolve(config, [CONF, *folders]))
            except ConfigError as error:
                wrong.append(str(error))
            except OmegaConfBaseException as error:
                wrong.append(first_line(error))
    unique = list(dict.fromkeys(wrong))
    if unique:
        raise ConfigError(
            unique[0] if len(unique) == 1 else f"{len(unique)} mistakes: " + " | ".join(f"({i}) {w}" for i, w in enumerate(unique, 1))
        )
    return ordered, sweep


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; settings are key=value, and --help lists groups and examples")


def _own_sweep(fixed: Sequence[str], given: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The first of each setting that a preset's own sweep varies, unless the command line gives it."""
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        params = compose("config", overrides=list(fixed), return_hydra_config=True).hydra.sweeper.params or {}
        lines = [f"{key}={params[key]!s}" for key in params if key not in given]
    except (HydraException, OmegaConfBaseException):
        return []  # told where every mistake is
    return _lines(OverridesParser.create().parse_overrides(lines), folders)[0]


def _lines(overrides: Sequence[Any], folders: Sequence[Path]) -> tuple[list[str], list[tuple[int, str]], list[str]]:
    """(one value of each setting, (place among them, another value), mistakes told without composing)."""
    fixed: list[str] = []
    varied: list[tuple[int, str]] = []
    wrong: list[str] = []
    for override in overrides:
        key, line = override.key_or_group, str(override.input_line)
        parent = key.partition(".")[0]
        if not key:
            wrong.append(f"{line} names no setting; write key=value")
        elif override.is_delete() and parent not in FREE:
            wrong.append(f"{line}: settings cannot be removed; give another value, or null where it is allowed")
        elif override.is_add() and not override.is_force_add() and (key in KNOWN or ("." not in key and "/" not in key)):
            wrong.append(f"{line}: + is for new keys inside of a group; {key} {'is there: leave out the +' if key in KNOWN else 'is none'}")
        elif override.is_sweep_override():
            space = override.value()
            values = (
                [str(space.start), str(space.end)] if override.is_interval_sweep() else [str(v) for v in override.sweep_string_iterator()]
            )
            unknown = _unknown(key, values, folders)
            wrong += unknown
            lines = [line.partition("=")[0] + "=" + v for v in values]
            if not unknown and lines:
                fixed.append(lines[0])
                varied += [(len(fixed) - 1, other) for other in lines[1:]]
            elif not lines:
                wrong.append(f"{line} gives no value; list some, separated by commas")
        else:
            value = override.value()
            unknown = (
                []
                if override.is_delete()
                else _unknown(key, [str(said(v)) for v in (value if isinstance(value, list) else [value])], folders)
            )
            wrong += unknown
            fixed += [] if unknown else [line]
    return fixed, varied, wrong


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
    return max(named, key=lambda i: len(keys[i]), default=None)


def _explain(override: str, error: Exception, rest: list[str]) -> str:
    """An unknown key with its nearest neighbours; rest chooses the groups."""
    from hydra import compose
    from omegaconf import DictConfig, OmegaConf

    if override.startswith("+"):
        return f"{override}: {first_line(error)}"
    key = override.lstrip("+~").partition("=")[0]
    parent, _, last = key.rpartition(".")
    config = compose("config", overrides=rest, return_hydra_config=True)
    while parent and not isinstance(OmegaConf.select(config, parent, throw_on_resolution_failure=False), DictConfig):
        parent, _, last = parent.rpartition(".")
    node: DictConfig = OmegaConf.select(config, parent) if parent else config
    names = [f"{parent}.{k!s}" if parent else str(k) for k in node if not str(k).startswith("_") and k not in INTERNAL]
    names += [] if parent else EMPTY
    full = f"{parent}.{last}" if parent else last
    if full in names:
        return f"{override}: {first_line(error)}"
    return f"{override}: there is no setting {full}; {nearest(full, names)}"
