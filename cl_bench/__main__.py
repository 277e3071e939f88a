"""Entry: `python -m cl_bench`. torch is imported only after the config is valid."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from cl_bench import cli
from cl_bench.core.errors import ConfigError, Interrupted, RunError

SWEEP = "CL_BENCH_SWEEP"  # a file where every job of a sweep, in whatever process, notes its folder
received = 0  # the signal that asked us to stop


def job(config: Any) -> None:
    """One run: skip what is finished, resume what is not."""
    from hydra.core.hydra_config import HydraConfig

    from cl_bench.checks import problems
    from cl_bench.folder import RunFolder
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
        print(f"{path}: finished already, skipped")
    else:
        _threads(plain["runtime"]["threads"])
        from cl_bench.run import execute

        print(f"{path}: starting", flush=True)
        execute(plain, folder, stop=lambda: received)
    if SWEEP in os.environ:
        with open(os.environ[SWEEP], "a") as file:
            file.write(f"{path.resolve()}\n")
    else:
        from cl_bench.show import show_run

        show_run(path)


def main() -> int:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        at = [Path(b) for a, b in zip(arguments, arguments[1:], strict=False) if a == "--config-dir"]
        print(cli.help_text(at))
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed as tracebacks
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        cli.check(arguments)
        return _hydra()
    except Interrupted as stopped:
        print("interrupted; saved: the same command goes on from here", file=sys.stderr)
        return stopped.exit_status
    except KeyboardInterrupt:
        print("interrupted; the last save is kept: the same command goes on from there", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ConfigError, RunError) as error:
        return cli.fail(str(error))
    except OSError as error:
        return cli.fail(f"{error.filename or 'a file'}: {error.strerror or error}; free some room, or correct the path")


def _hydra() -> int:
    import hydra

    notes = Path(tempfile.mkdtemp(prefix="cl_bench_")) / "sweep"
    entry = hydra.main(version_base="1.3", config_path=str(cli.CONF), config_name="config")(_job_of_sweep)
    os.environ["CL_BENCH_NOTES"] = str(notes)
    try:
        entry()
    finally:
        folders = notes.read_text().split("\n")[:-1] if notes.exists() else []
        notes.unlink(missing_ok=True)
        notes.parent.rmdir()
        if folders:
            from cl_bench.show import show_sweep

            show_sweep([Path(f) for f in dict.fromkeys(folders)])
    return 0


def _job_of_sweep(config: Any) -> None:
    """Hydra goes on with a sweep after an Exception, so each failure is told when it happens."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return job(config)
    os.environ[SWEEP] = os.environ["CL_BENCH_NOTES"]
    try:
        job(config)
    except (ConfigError, RunError) as error:
        cli.fail(str(error))
        raise
    return None


def _threads(count: int) -> None:
    """Before torch starts: its threads, and no spinning while they wait (10 times slower on a shared CPU)."""
    if count:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(count)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def _stop(number: int, frame: FrameType | None) -> None:
    """The loop saves at its next step; a second Ctrl-C does not wait for that."""
    global received
    if received or "torch" not in sys.modules:
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
    received = number


if __name__ == "__main__":
    sys.exit(main())
