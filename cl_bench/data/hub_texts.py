"""Texts of Hugging Face's hub, or of a folder that its library wrote."""

from __future__ import annotations

from pathlib import Path

from cl_bench.core.errors import ConfigError
from cl_bench.core.hub import reach
from cl_bench.data.resident import reason


def read(name: str, root: Path | None, path: tuple[str, str | None], split: str, column: str, rows: int | None) -> list[str]:
    """A column of a split of data=name, its first rows where they are counted; path: on the hub, with the name of its configuration."""
    if root is None:
        reach()
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            f"data={name} needs the package datasets; install it with pip install 'cl-bench[text]', or use data=python_docs"
        ) from None
    try:
        if root is not None:
            return list(datasets.load_from_disk(str(root))[split][column][:rows])
        if rows is None:
            return list(datasets.load_dataset(*path, split=split)[column])
        # a slice of a split, train[:20000], would come after a download of all (huggingface/datasets#2538)
        stream = datasets.load_dataset(*path, split=split, streaming=True)
        return [row[column] for row in stream.take(rows)]
    except Exception as error:  # the library's own, requests', the hub's, a missing split or column
        raise ConfigError(
            f"data={name}: split {split} of {path[0]} cannot be had ({reason(error)}). Ways to go on: (1) connect to the hub "
            f"once; (2) set data.root=<a folder written by datasets' save_to_disk>; (3) use data=text data.root=<your files>, "
            f"or data=python_docs and data=python_source, which need no network."
        ) from None
