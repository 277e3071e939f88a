"""The command line before anything heavy: help, and every mistake in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cl_bench.build import nearest
from cl_bench.checks import problems
from cl_bench.core.errors import ConfigError

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
GROUPS = ("scenario", "data", "model", "objective", "strategy", "view", "train", "probe", "experiment")

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


def help_text(folders: Sequence[Path]) -> str:
    """Groups, choices, five commands."""
    lines = ["usage: python -m cl_bench [group=choice ...] [key.subkey=value ...] [-m a sweep]", "", "groups and choices:"]
    lines += [f"  {group:<11}{', '.join(choices(group, folders))}" for group in GROUPS]
    lines += ["", "examples:", *(f"  {line}" for line in EXAMPLES.splitlines()), ""]
    lines += [
        "`--cfg job` prints the composed configuration; `--config-dir DIR` adds your own groups; `hydra/launcher=joblib` runs a sweep in parallel."
    ]
    return "\n".join(lines)


def check(arguments: Sequence[str]) -> None:
    """Compose as Hydra will and tell all mistakes at once; of a sweep, vary one setting at a time."""
    from hydra import compose, initialize_config_dir
    from hydra._internal.utils import get_args_parser
    from hydra.core.config_loader import ConfigLoader  # noqa: F401 - pulls the plugins in once
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    parsed = get_args_parser().parse_args(list(arguments))
    folders = [Path(parsed.config_dir)] if parsed.config_dir else []
    try:
        overrides = OverridesParser.create().parse_overrides(parsed.overrides)
    except HydraException as error:
        raise ConfigError(f"{first_line(error)}; write settings as key=value, quoting what the shell would change") from error
    wrong: list[str] = []
    fixed: list[str] = []  # one value of each setting
    varied: list[tuple[int, str]] = []  # (place in fixed, another value)
    for override in overrides:
        key = override.key_or_group
        values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [str(override.value())]
        if key in GROUPS and not override.is_delete():
            listed = [v for v in given] if isinstance(given := override.value(), list) else values
            unknown = [str(v) for v in listed if str(v) not in choices(key, folders) and str(v) not in ("None", "null")]
            if unknown:
                wrong += [f"{key}={v} is not known; {nearest(v, choices(key, folders))}" for v in unknown]
                continue
        lines = (
            [f"{str(override.input_line).partition('=')[0]}={v}" for v in values]
            if override.is_sweep_override()
            else [str(override.input_line)]
        )
        fixed.append(lines[0])
        varied += [(len(fixed) - 1, line) for line in lines[1:]]
    jobs = [fixed] + [[*fixed[:at], line, *fixed[at + 1 :]] for at, line in varied]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for folder in folders:
            loader.get_search_path().append("command-line", f"file://{folder.resolve()}")
        for job in jobs:
            kept = list(job)
            while True:
                try:
                    config = compose("config", overrides=kept)
                    break
                except (HydraException, OmegaConfBaseException) as error:
                    at = _blame(kept, error)
                    if at is None:
                        raise ConfigError(first_line(error)) from error
                    wrong.append(_explain(kept.pop(at), error, kept))
            from cl_bench.resolve import resolve

            try:
                wrong += problems(resolve(config, [CONF, *folders], named=False))
            except ConfigError as error:
                wrong.append(str(error))
            except OmegaConfBaseException as error:
                wrong.append(first_line(error))
    unique = list(dict.fromkeys(wrong))
    if unique:
        raise ConfigError(
            unique[0] if len(unique) == 1 else f"{len(unique)} mistakes: " + " | ".join(f"({i}) {w}" for i, w in enumerate(unique, 1))
        )


def _blame(job: list[str], error: Exception) -> int | None:
    """Which override an error of Hydra's is about: the one whose removal is named in it."""
    text = str(error)
    keys = [line.lstrip("+~").partition("=")[0] for line in job]
    named = [
        i for i, key in enumerate(keys) if f"'{key}'" in text or f"{key}" in text.split("\n")[0] or f"full_key: {key}\n" in text + "\n"
    ]
    return max(named, key=lambda i: len(keys[i]), default=None)


def _explain(override: str, error: Exception, rest: list[str]) -> str:
    """An unknown key with its nearest neighbours."""
    from hydra import compose
    from omegaconf import DictConfig, OmegaConf

    if override.startswith("+"):
        return f"{override}: {first_line(error)}"
    key = override.lstrip("+~").partition("=")[0]
    parent, _, last = key.rpartition(".")
    config = compose("config", overrides=rest)
    while parent and not isinstance(OmegaConf.select(config, parent, throw_on_resolution_failure=False), DictConfig):
        parent, _, last = parent.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    names = [f"{parent}.{k}" if parent else str(k) for k in node if k != "_target_"]
    full = f"{parent}.{last}" if parent else last
    if full in names:
        return f"{override}: {first_line(error)}"
    return f"{override}: there is no setting {full}; {nearest(full, names)}"


def first_line(error: BaseException) -> str:
    text = str(error) or str(error.__cause__)
    return " ".join(text.split("\n")[0].split()) or type(error).__name__


def fail(message: str, status: int = 2) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
