"""Tables and plots of finished runs: python -m cl_bench.reports outputs/split_mnist [--by model strategy]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import about, fail
from cl_bench.reports import collect, tables
from cl_bench.reports.final import beside_published
from cl_bench.reports.settings import ALONG


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cl_bench.reports", description="Compare finished runs.")
    parser.add_argument("folders", nargs="*", type=Path, help="folders that hold runs at any depth")
    parser.add_argument("--by", nargs="+", metavar="COLUMN", help=f"columns to group by: {', '.join(collect.AXES)}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: report/ in the first folder)")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="metrics of summary.csv to put in the table")
    parser.add_argument("--analyses", action="store_true", help="frontier, forgetting at matched accuracy, trend over model sizes")
    parser.add_argument("--along", choices=ALONG, help="forgetting and its trend along an axis of the scale study")
    parser.add_argument("--patching", action="store_true", help="pairs of strategy=paint beside grids of coefficients, and transfer")
    parser.add_argument("--match", type=float, metavar="B", help="accuracy on the last task, 0 to 1, to match at (with --analyses)")
    parser.error = _refuse  # type: ignore[method-assign]
    options = parser.parse_args(arguments)
    for names in (options.by or [], options.metrics or []):  # `--metrics x outputs`: the option takes the folders after it
        taken = [name for name in names if name not in collect.AXES and Path(name).is_dir()]
        options.folders += map(Path, taken)
        names[:] = [name for name in names if name not in taken]
    if options.match is not None and not (options.analyses and 0 <= options.match <= 1):
        _refuse(f"--match {options.match:g} is not allowed; give an accuracy from 0 to 1, beside --analyses")
    if not options.folders:
        _refuse("no folder is given; name one that holds runs, such as outputs")
    return options


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; --help lists the options")


def report(options: argparse.Namespace) -> None:
    """Read, write, print."""
    folders, given, metrics = options.folders, options.by, options.metrics
    out = options.out or folders[0] / "report"
    runs = collect.read_runs(folders)
    by = list(dict.fromkeys(given or tables.differing(runs)))
    table = tables.comparison(runs, by, metrics)  # a misspelt column stops here, before a file is written
    streams = [axis for axis in ("scenario", "data") if axis not in by and (runs.groupby(by)[axis].nunique() > 1).any()]
    if streams:  # a mean over unlike streams means nothing
        by = [*streams, *by]
        table = tables.comparison(runs, by, metrics)
    from cl_bench.reports import plots

    out.mkdir(parents=True, exist_ok=True)
    tables.show(table)
    for published in beside_published(runs, by):
        tables.show(published)
    if streams:
        print(f"note: the runs are of several streams, so the groups are also by {' and '.join(streams)}.")
    written = [*tables.write(runs, by, out, metrics), *plots.write(runs, by, out)]
    if options.analyses:
        from cl_bench.reports import analyses

        written += analyses.write(runs, given, out, metrics, options.match)
    if options.along:
        from cl_bench.reports import along

        written += along.write(runs, options.along, out)
    if options.patching:
        from cl_bench.reports import patching

        written += patching.write(runs, out)
    merged = [axis for axis in tables.differing(runs) if axis not in by and runs[axis].nunique() > 1]
    mixed = [axis for axis in merged if (runs.groupby(by)[axis].nunique() > 1).any()]
    if mixed:
        print(f"note: a group mixes runs that differ in {', '.join(mixed)}; add that to --by to part them.")
    twice = int(runs.duplicated(list(collect.AXES)).sum())
    if twice:
        print(f"note: {twice} of the runs share name and seed with another run and count again; give fewer folders.")
    unfinished = len(collect.find_folders(folders)[1])
    if unfinished:
        print(f"{unfinished} unfinished {'run' if unfinished == 1 else 'runs'} left out (no summary.csv).")
    print(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}, {len(written)} files written to {out}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line that says what to change."""
    try:
        report(parse(arguments))
    except ConfigError as error:
        return fail(str(error))
    except OSError as error:
        return fail(about(error, "--out"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
