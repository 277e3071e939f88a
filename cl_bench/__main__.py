"""Entry: `python -m cl_bench`. torch is imported only after the config is valid."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

from cl_bench import cli, mistakes
from cl_bench.core.errors import ConfigError, Interrupted, RunError
from cl_bench.core.stop import Stop

NOTES = "CL_BENCH_NOTES"  # a file where every job of a sweep, in whatever process, notes its folder or its mistake
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
        folder.check_saved(plain["runtime"]["save_backbone"])
        print(f"{path}: finished already, skipped")
    else:
        _threads(plain["runtime"]["threads"])
        logging.disable(logging.INFO)  # libraries' remarks; ours are printed
        from cl_bench.run import execute

        execute(plain, folder, stop)
    if NOTES not in os.environ:
        from cl_bench.show import show_run

        show_run(path)
    return path, score(path, plain["runtime"]["search"])


def main() -> int:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        at = [Path(b) for a, b in pairwise(arguments) if a == "--config-dir"]
        print(cli.help_text(at))
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed as tracebacks
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.handle)
    try:
        sys.argv[1:], sweep = cli.check(arguments)
        return _hydra(sweep)
    except Interrupted as stopped:
        print("interrupted; what is saved stays: the same command goes on from there", file=sys.stderr)
        return stopped.exit_status
    except (ConfigError, RunError) as error:
        return mistakes.fail(str(error))
    except OSError as error:
        return mistakes.fail(mistakes.about(error))


def _hydra(sweep: Path | None) -> int:
    """Run what is asked; of a sweep's jobs, whatever process they ran in, tell failures and figures at the end."""
    import hydra
    from hydra.errors import HydraException

    notes = None if sweep is None else (sweep / f"{socket.gethostname()}-{os.getpid()}.jsonl").resolve()
    os.environ[COMMAND] = json.dumps(sys.argv[1:])
    if notes:
        os.environ[NOTES] = str(notes)
    entry = hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="config")(_entry)
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
        lines = [json.loads(line) for line in notes.read_text().splitlines()] if notes and notes.exists() else []
        if notes:
            notes.unlink(missing_ok=True)
        folders = dict.fromkeys(Path(line["folder"]) for line in lines if "folder" in line)
        if folders:
            from cl_bench.show import show_sweep

            show_sweep(list(folders))
        if "hydra/sweeper=optuna" in sys.argv:
            _tell_best(lines)
    failures.extend(line["error"] for line in lines if "error" in line)
    if len(lines) > 1 and failures:
        raise RunError(f"{len(failures)} of {len(lines)} runs failed: " + " | ".join(mistakes.kinds(failures)))
    if failures:
        raise RunError(failures[0])
    return 0


def _entry(config: Any) -> float | None:
    """A job of Hydra's, in this process or a launcher's. Its mistakes are noted, not raised: Hydra would print them its way."""
    sys.argv[1:] = json.loads(os.environ[COMMAND])
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop.handle)
    note: dict[str, str | float] = {}
    value = None
    try:
        folder, value = job(config)
        note = {"folder": str(folder.resolve()), "score": value}
    except (ConfigError, RunError) as error:
        note["error"] = str(error)
    except OSError as error:
        note["error"] = mistakes.about(error)
    except Exception as error:
        bugs.append(error)
        raise
    if NOTES in os.environ:
        if "error" in note:
            print(f"failed: {note['error']}", flush=True)
        Path(os.environ[NOTES]).parent.mkdir(parents=True, exist_ok=True)
        with open(os.environ[NOTES], "a") as file:
            file.write(json.dumps(note) + "\n")
    elif "error" in note:
        failures.append(str(note["error"]))
    return value


def _tell_best(lines: list[dict[str, Any]]) -> None:
    """Of a search: the run with the best score."""
    scores = {line["folder"]: line["score"] for line in lines if line.get("score") == line.get("score") and "folder" in line}
    if scores:
        pick = min if "hydra.sweeper.direction=minimize" in sys.argv else max  # of losses the least
        best = pick(scores, key=lambda folder: scores[folder])
        print(f"best of {len(lines)}: {scores[best]:.4f}, {best}")


def _threads(count: int) -> None:
    """Before torch starts: its threads, and no spinning while they wait (10 times slower on a shared CPU)."""
    if count:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(count)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


if __name__ == "__main__":
    sys.exit(main())
