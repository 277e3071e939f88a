"""Text data: blocks, splits by file, Python's own library, BPE, the hub's loading code on a fake."""

from __future__ import annotations

import ast
import sys
import types
from pathlib import Path

import pytest
import torch

from cl_bench.data import hub_texts, python_texts, texts, tokens

WORDS = "the cat sat on the mat and ran "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten small files, one of them no text."""
    place = tmp_path / "mine"
    (place / "deep").mkdir(parents=True)
    for n in range(9):
        (place / ("deep" if n % 2 else "") / f"{n}.txt").write_text(f"file {n}: " + WORDS * 9)
    (place / "picture.bin").write_bytes(b"\xff\xfe\x00")
    return place


@pytest.fixture
def data(source, tmp_path: Path):
    """data(name, **changes) -> Dataset."""
    return lambda name="text", **changes: source(name, tmp_path, **{"length": 16, **changes})()


def words(raw: torch.Tensor) -> str:
    """Blocks overlap by one token."""
    return bytes([*raw[0, :1].tolist(), *raw[:, 1:].flatten().tolist()]).decode()


def test_blocks_predict_every_token_once() -> None:
    found = tokens.blocks(torch.arange(24), 5, "text")
    assert found.tolist() == [list(range(i, i + 6)) for i in (0, 5, 10, 15)]


def test_files_are_split_whole(data, folder: Path) -> None:
    made = data(root=str(folder), test_fraction=0.25, test_blocks=None)
    train, test = words(made.train.raw), words(made.test.raw)
    numbers = [{part[5] for part in text.split("\0") if part[:4] == "file"} for text in (train, test)]
    assert len(numbers[0]) == 7 and len(numbers[1]) == 2 and not numbers[0] & numbers[1]
    assert made.train.raw.dtype == torch.uint8 and made.train.raw.shape[1] == 17 and made.num_classes == 256
    assert not made.train.y.any() and made.tokenizer == ()
    again = data(root=str(folder), test_fraction=0.25, test_blocks=None)
    assert again.checksum == made.checksum
    (folder / "8.txt").write_text("other " + WORDS * 9)
    assert data(root=str(folder), test_fraction=0.25).checksum != made.checksum  # no old cache for new text


def test_a_part_of_the_test_is_spread(data, folder: Path) -> None:
    whole, part = (data(root=str(folder), test_fraction=0.5, test_blocks=n).test.raw for n in (None, 3))
    assert torch.equal(part, whole[[0, len(whole) // 3, 2 * len(whole) // 3]])


def test_a_lone_file_is_cut_at_its_end(data, folder: Path) -> None:
    made = data(root=str(folder / "0.txt"), test_fraction=0.2)
    text = (folder / "0.txt").read_text()
    assert text.startswith(words(made.train.raw)) and words(made.test.raw).rstrip("\0") in text[-60:]


def test_train_and_test_folders(data, tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "own" / part).mkdir(parents=True)
        (tmp_path / "own" / part / "a.txt").write_text(part * 20)
    made = data(root=str(tmp_path / "own"))
    assert words(made.train.raw).startswith("traintrain") and words(made.test.raw).startswith("testtest")


def test_bad_text_is_one_line(data, folder: Path, tmp_path: Path, error) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no text" in error(lambda: data(root=str(tmp_path / "empty")))
    assert "holds no text" in error(lambda: data(root=str(folder / "picture.bin")))
    message = error(lambda: data(root=str(folder), length=5000))
    assert "data.length=5000 is longer than the training text" in message and "lower data.length" in message
    assert "data.root is not set" in error(lambda: data())
    assert "data.vocabulary=300" in error(lambda: data(root=str(folder), vocabulary=300))
    assert "257 or more" in error(lambda: data(root=str(folder), tokens="bpe"))


def test_docstrings_and_code_are_parted() -> None:
    text = '"""Modul\u00e9."""\n\nX = 1  # kept\n\n\ndef f(x):\n    """Twice.\n\n    More.\n    """\n'
    text += '    return "no docstring"\n\n\nclass A: "one"; y = 2\n'
    code = python_texts.without_docstrings(text, ast.parse(text))
    assert "# kept" in code and "no docstring" in code and "y = 2" in code
    assert not any(word in code for word in ("Modul", "Twice", "More", "one"))
    assert code.strip().startswith("X = 1") and "def f(x):\n    return" in code


def test_the_library_is_there(monkeypatch: pytest.MonkeyPatch, data) -> None:
    """On a few of its files: all take seconds."""
    few = [(name, path) for name, path in python_texts.stdlib() if name in ("bisect.py", "heapq.py", "colorsys.py", "json/decoder.py")]
    assert len(few) == 4
    monkeypatch.setattr(python_texts, "stdlib", lambda: few)
    english, code = data("python_docs", test_fraction=0.3, test_blocks=None), data("python_source", test_fraction=0.3, test_blocks=None)
    assert "Bisection algorithms." in words(english.train.raw) + words(english.test.raw)
    both = words(code.train.raw) + words(code.test.raw)
    assert "def insort_right" in both and "Bisection algorithms." not in both
    assert data("python_docs", test_fraction=0.3, test_blocks=None).checksum == english.checksum


def test_packages_are_read_as_they_stand(data, error) -> None:
    """Found by name, not imported."""
    found = data("python_packages", packages=["json"], test_blocks=None)
    text = words(found.train.raw) + words(found.test.raw)
    assert "JSON (JavaScript Object Notation)" in text and "def loads(" in text
    assert data("python_packages", packages=["json"], test_blocks=None).checksum == found.checksum
    for name in ("nowhere", "json.decoder", "heapq"):
        assert f"data.packages: {name} is no installed package" in error(lambda name=name: data("python_packages", packages=[name]))


def test_bpe(data, folder: Path, tmp_path: Path, error) -> None:
    library = pytest.importorskip("tokenizers")
    made = data(root=str(folder), tokens="bpe", vocabulary=270, length=8)
    assert made.train.raw.dtype == torch.int32 and made.num_classes == 270 and int(made.train.raw.max()) > 256
    [file] = (tmp_path / "cache").glob("text-*.tokenizer.json")
    [sha] = made.tokenizer
    assert sha[:12] in file.name
    tokenizer = library.Tokenizer.from_file(str(file))
    assert "cat sat" in tokenizer.decode(made.train.raw[2].tolist() + made.train.raw[3, 1:].tolist())
    file.rename(tmp_path / "own.json")
    again = data(root=str(folder), tokens="bpe", vocabulary=270, length=8, tokenizer=str(tmp_path / "own.json"))
    assert again.tokenizer == made.tokenizer and torch.equal(again.train.raw, made.train.raw)
    assert "set data.vocabulary=" in error(lambda: data(root=str(folder), tokens="bpe", vocabulary=5000))
    (tmp_path / "bad.json").write_text("{}")
    assert "bad.json cannot be read" in error(
        lambda: data(root=str(folder), tokens="bpe", vocabulary=270, tokenizer=str(tmp_path / "bad.json"))
    )


def test_bpe_learns_from_the_training_part_alone(data, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    shas = []
    for ending in ("zzzz", "qqqq"):
        for part, text in (("train", WORDS * 9), ("test", ending * 20)):
            (tmp_path / ending / part).mkdir(parents=True)
            (tmp_path / ending / part / "a.txt").write_text(text)
        shas.append(data(root=str(tmp_path / ending), tokens="bpe", vocabulary=265, length=4).tokenizer)
    assert shas[0] == shas[1]


def test_without_the_library_bpe_says_what_to_install(data, folder: Path, monkeypatch: pytest.MonkeyPatch, error) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert "cl-bench[text]" in error(lambda: data(root=str(folder), tokens="bpe", vocabulary=270))


def fake_hub(monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[str]], calls: list) -> None:
    """The two functions of `datasets` that we call; a stream of it knows no columns and no slices of a split."""

    class Stream(list):
        def take(self, count):
            return self[:count]

    def load_dataset(path, config, split, streaming=False):
        calls.append((path, config, split, *(["streamed"] * streaming)))
        if split not in rows:
            raise ConnectionError(f"Couldn't reach '{path}' on the Hub\nsecond line")
        return Stream({"text": text} for text in rows[split]) if streaming else {"text": rows[split]}

    library = types.ModuleType("datasets")
    library.load_dataset = load_dataset
    library.load_from_disk = lambda place: {split: {"text": found} for split, found in rows.items()}
    monkeypatch.setitem(sys.modules, "datasets", library)


def test_hub(data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error) -> None:
    calls: list = []
    fake_hub(monkeypatch, {"train": [WORDS * 3, " ", "film " * 9], "test": ["bad " * 9]}, calls)
    made = data("imdb")
    assert calls == [("stanfordnlp/imdb", None, "train"), ("stanfordnlp/imdb", None, "test")]
    assert words(made.train.raw).startswith(WORDS * 3 + "\0film") and words(made.test.raw).startswith("bad bad")
    assert words(data("imdb", root=str(tmp_path)).test.raw) == words(made.test.raw)
    fake_hub(monkeypatch, {}, calls)
    message = error(lambda: data("wikipedia"))
    assert "split train of wikimedia/wikipedia" in message and "(1)" in message and "(3)" in message
    fake_hub(monkeypatch, {"train": [WORDS * n for n in range(2, 9)]}, calls)
    whole = data("wikipedia")  # no test split: whole articles are held out
    assert len(whole.train.raw) > len(whole.test.raw) > 0
    assert calls[-1] == ("wikimedia/wikipedia", "20231101.en", "train", "streamed")  # the rest is not downloaded
    for root in (None, str(tmp_path)):  # of a folder too
        few = data("wikipedia", rows=3, root=root)
        assert len(few.train.raw) + len(few.test.raw) <= len(WORDS) * (2 + 3 + 4) // 16
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "cl-bench[text]" in error(lambda: data("wikitext"))


def test_the_first_rows_of_a_stream_are_those_of_the_file(source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error) -> None:
    """Through the library itself, from a folder of Parquet as Wikipedia's is."""
    pytest.importorskip("datasets")
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr(hub_texts, "reach", lambda: None)
    table = pa.table({"title": ["t"] * 40, "text": [f"article {n}" for n in range(40)]})
    (tmp_path / "hub").mkdir()
    parquet.write_table(table, tmp_path / "hub" / "train-00000-of-00001.parquet", row_group_size=4)
    found = {"path": str(tmp_path / "hub"), "config": None}
    train, test = source("wikipedia", tmp_path, rows=10, **found).texts()
    assert train == [(f"train {n}", f"article {n}") for n in range(10)] and test is None
    for wrong in ({"train": "nowhere"}, {"column": "body"}):
        assert "(1) connect" in error(lambda wrong=wrong: source("wikipedia", tmp_path, rows=10, **found, **wrong).texts())


def test_held_out_texts_fit_the_share() -> None:
    named = [(str(n), "x" * (n + 1)) for n in range(20)]
    train, test = texts.hold_out(named, 0.2, 0)
    assert len(train) + len(test) == 20 and 0.15 < sum(map(len, test)) / 210 <= 0.2
    assert texts.hold_out(named, 0.2, 1)[1] != test
    assert texts.hold_out([("a", "xxxx"), ("b", "yy")], 0.1, 0) == (["xxxx"], ["yy"])
