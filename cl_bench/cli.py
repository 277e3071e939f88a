"""The command line before anything heavy: help, and every mistake in one line."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cl_bench import plugins
from cl_bench.checks import problems
from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import first_line
from cl_bench.overrides import CONF, GROUPS, changed, choices, composed, own_sweep, spread

if TYPE_CHECKING:
    from omegaconf import DictConfig

HOME = re.compile(r"^([\w./@+]+=)~(?=/|$)")  # which a shell reads only at the start of a word

EXAMPLES = """\
python -m cl_bench                                              sequential MLP on split digits
python -m cl_bench strategy=ewc model=vit_b                     one choice per group
python -m cl_bench -m model=vit_xs,vit_s,vit_b strategy=sequential,ewc,er seed=0,1,2    a sweep
python -m cl_bench experiment=demo                              a whole comparison, with its table
python -m cl_bench.reports outputs --by model strategy          tables and plots of finished runs"""


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


def config_dirs(arguments: Sequence[str]) -> list[Path]:
    """What --config-dir names, in either way of writing it."""
    found = [b for a, b in pairwise(arguments) if a == "--config-dir"]
    found += [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    return [Path(name) for name in found]


def check(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """Compose as Hydra will and tell all mistakes at once; of a sweep, vary one setting at a time.

    Returns the arguments with options first, as Hydra reads them, and a sweep's folder.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    arguments = [HOME.sub(lambda found: found[1] + str(Path.home()), a) for a in arguments]
    parsed = parser.parse_intermixed_args(arguments)
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
    with _hydra(folders):
        sweep, wrong = _compose_all(parsed, folders)
    unique = list(dict.fromkeys(wrong))
    if unique:
        raise ConfigError(
            unique[0] if len(unique) == 1 else f"{len(unique)} mistakes: " + " | ".join(f"({i}) {w}" for i, w in enumerate(unique, 1))
        )
    return ordered, sweep


@contextmanager
def _hydra(folders: Sequence[Path]) -> Iterator[None]:
    """Hydra with our groups and the user's, as hydra.main sets it up."""
    from hydra import initialize_config_dir
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    import cl_bench.resolve  # noqa: F401  its resolvers stand in presets, in their sweeps too

    with initialize_config_dir(str(CONF), version_base="1.3"):
        plugins.give_way({kind: choices(f"hydra/{kind}") for kind in ("launcher", "sweeper")})
        loader = GlobalHydra.instance().config_loader()
        for folder in folders:
            loader.get_search_path().prepend("command-line", f"file://{folder.resolve()}", SearchPathQuery(provider="schema"))
        loader.repository.initialize_sources(loader.get_search_path())  # type: ignore[attr-defined]
        yield


def _compose_all(parsed: Namespace, folders: Sequence[Path]) -> tuple[Path | None, list[str]]:
    """(A sweep's folder, the mistakes of all jobs)."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra.types import RunMode

    try:
        overrides = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader()).parse_overrides(parsed.overrides)
        fixed, varied, wrong = spread(overrides, folders)
    except HydraException as error:
        raise ConfigError(f"{first_line(error)}; write settings as key=value, quoting what the shell would change") from error
    sweep = None
    own = own_sweep(fixed, [o.key_or_group for o in overrides], folders)
    fixed, varied = [*own, *fixed], [(at + len(own), other) for at, other in varied]
    base = composed(fixed, wrong)
    for number, (at, line) in enumerate([(0, ""), *varied]):
        config = changed(base, line) if number else base
        if config is None:
            config = composed([*fixed[:at], line, *fixed[at + 1 :]], wrong) if number else None
        if config is None:
            continue
        if number == 0 and (parsed.multirun or config.hydra.mode == RunMode.MULTIRUN):
            wrong += plugins.problems("launcher", config.hydra.launcher) + plugins.problems("sweeper", config.hydra.sweeper)
            sweep = Path(str(config.runtime.outputs)) / ".sweep" if isinstance(config.runtime.get("outputs"), str) else None
        elif number == 1 and sweep is None and not parsed.cfg:
            several = next(str(o.input_line) for o in overrides if o.is_sweep_override())
            wrong.append(f"{several} gives several values; add -m to run one job for each, or give one value (a list is [a,b])")
        wrong += _problems(config, folders)
    return sweep, wrong


def _problems(config: DictConfig, folders: Sequence[Path]) -> list[str]:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import OmegaConfBaseException

    from cl_bench.resolve import resolve

    try:
        HydraConfig.instance().set_config(config)  # it knows the choices' names, and places can follow from them
        return problems(resolve(config, [CONF, *folders]))
    except ConfigError as error:
        return [str(error)]
    except OmegaConfBaseException as error:
        return [first_line(error)]


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; settings are key=value, and --help lists groups and examples")
