"""Entry: `python -m cl_bench`. torch is imported only after the config is valid."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import cl_bench
from cl_bench import cli, mistakes, notes
from cl_bench.core.errors import ConfigError, Interrupted, RunError
from cl_bench.core.stop import Stop
from cl_bench.overrides import CONF

COMMAND = "CL_BENCH_COMMAND"  # as typed, for jobs in other processes
stop = Stop()
failures: list[str] = []
bugs: list[Exception] = []  # of ours or of a user's own code: these keep their traceback


def job(config: Any) -> tuple[Path, float]:
    """One run: skip what is finished, resume what is not. Its folder, and the score that a search maximises."""
    from hydra.core.hydra_config import HydraConfig

    from cl_bench.checks import problems
    from cl_bench.folder import RunFolder, score
    from cl_bench.resolve import resolve

    sources = [Path(s.path) for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
    plain = resolve(config, sources)
    found = problems(plain)
    if found:
        raise ConfigError(" | ".join(found))
    path = Path(plain.pop("folder"))
    folder = RunFolder(path)
    folder.check(plain)
    if folder.finished:
        folder.checkpoint.unlink(missing_ok=True)  # of a process that was killed right after its last table
        folder.check_saved(plain["runtime"]["save_backbone"])
        print(f"{path}: finished already, skipped")
    else:
        _threads(plain["runtime"]["threads"])
        plain["runtime"]["progress"] &= not notes.of_worker()  # live bars of several processes would overwrite each other
        logging.disable(logging.INFO)  # libraries' remarks; ours are printed
        from cl_bench.run import execute

        execute(plain, folder, stop)
    if not notes.kept():
        from cl_bench.show import show_run

        show_run(path)
    return path, score(path, plain["runtime"]["search"])


def main() -> int:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(cli.help_text(cli.config_dirs(arguments)))
        return 0
    if "--version" in arguments:
        print(f"cl_bench {cl_bench.__version__}")
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed as tracebacks
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handle)
    try:
        sys.argv[1:], sweep = cli.check(arguments)
        return _hydra(sweep)
    except Interrupted as stopped:
        print("interrupted; what is saved stays: the same command goes on from there", file=sys.stderr)
        return stopped.exit_status
    except (ConfigError, RunError) as error:
        return mistakes.fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's last flush fails as well
        return mistakes.fail("who read the output has left; run it again without a pipe, or into a file: what is saved stays")
    except OSError as error:
        return mistakes.fail(mistakes.about(error))


def _handle(number: int, frame: FrameType | None) -> None:
    """Ctrl-C, or SIGTERM as Slurm sends it."""
    if notes.kept() and not notes.of_worker():
        notes.stop_workers(number)
    stop.handle(number, frame)


def _pass_on(number: int, frame: FrameType | None) -> None:
    """From the launcher; whoever stopped it may have told us already."""
    if not stop():
        stop.handle(signal.SIGTERM, frame)


def _hydra(sweep: Path | None) -> int:
    """Run what is asked; of a sweep's jobs, whatever process they ran in, tell failures and figures at the end."""
    import hydra
    from hydra.errors import HydraException

    os.environ[COMMAND] = json.dumps(sys.argv[1:])
    if sweep is not None:
        notes.begin(sweep)
    entry = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_entry)
    lines: list[dict[str, Any]] = []
    try:
        entry()
    except HydraException as error:
        raise ConfigError(mistakes.first_line(error)) from error
    except Exception as error:
        if sweep is None or bugs:
            raise
        said = f"{type(error).__name__}: {mistakes.first_line(error)}"
        raise RunError(
            f"the sweep's launcher or sweeper failed ({said}); correct hydra.launcher or hydra.sweeper; runs stay resumable"
        ) from error
    finally:
        if sweep is not None:
            lines = notes.close()
            _tell(lines)
    failures.extend(line["error"] for line in lines if "error" in line)
    if len(lines) > 1 and failures:
        raise RunError(f"{len(failures)} of {len(lines)} runs failed: " + " | ".join(mistakes.kinds(failures)))
    if failures:
        raise RunError(failures[0])
    return 0


def _tell(lines: Sequence[Mapping[str, Any]]) -> None:
    """One table over a sweep's runs and, of a search, the run with the best score."""
    folders = dict.fromkeys(Path(line["folder"]) for line in lines if "folder" in line)
    if folders:
        from cl_bench.show import show_sweep

        show_sweep(list(folders))
    scored = [line for line in lines if line.get("direction") and line["score"] == line["score"]]  # NaN is no score
    if scored:
        pick = min if scored[0]["direction"] == "minimize" else max  # of losses the least
        best = pick(scored, key=lambda line: line["score"])
        print(f"best of {len(lines)}: {best['score']:.4f}, {best['folder']}")


def _entry(config: Any) -> float | None:
    """A job of Hydra's, in this process or a launcher's."""
    sys.argv[1:] = json.loads(os.environ[COMMAND])
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _handle)
        signal.signal(signal.SIGUSR1, _pass_on)
    if notes.of_worker():
        notes.started()
    try:
        note = _noted(config)
    finally:
        if notes.of_worker():
            notes.stopped()
    if notes.kept():
        if "error" in note:
            print(f"failed: {note['error']}", flush=True)
        notes.add(note)
    elif "error" in note:
        failures.append(str(note["error"]))
    return note.get("score")


def _noted(config: Any) -> dict[str, Any]:
    """What became of a job. Its mistakes are not raised: Hydra would print them its way."""
    from hydra.core.hydra_config import HydraConfig

    try:
        folder, value = job(config)
    except (ConfigError, RunError) as error:
        return {"error": str(error)}
    except BrokenPipeError:
        raise
    except OSError as error:
        return {"error": mistakes.about(error)}
    except Exception as error:
        bugs.append(error)
        raise
    return {"folder": str(folder.resolve()), "score": value, "direction": HydraConfig.get().sweeper.get("direction")}


def _threads(count: int) -> None:
    """Before torch starts: its threads, and no spinning while they wait (10 times slower on a shared CPU)."""
    if count:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(count)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


if __name__ == "__main__":
    sys.exit(main())
