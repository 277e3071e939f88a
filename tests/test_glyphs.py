"""Pictures drawn from fonts: which classes, the same bytes again, subsets inside each other."""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np
import pytest
import torch

from cl_bench.core.types import Examples
from cl_bench.data import characters, glyph_pictures, glyphs

SMALL = {"classes": "digits", "images_per_class": 8, "test_per_class": 2}


@pytest.fixture
def made(source, tmp_path):
    return lambda **changes: source("glyphs", tmp_path, **{**SMALL, **changes})()


def rows(data: Examples, names: tuple[str, ...]) -> set[tuple[str, bytes]]:
    return {(names[y], raw.numpy().tobytes()) for raw, y in zip(data.raw, data.y.tolist())}


def choice(**changes) -> glyphs.Choice:
    settings = {"classes": "all", "exclude": (), "min_faces": 6, "test_faces": (), "same": 0.995, "alike": 0.9, "seed": 0}
    return glyphs.Choice(**{**settings, **changes})


def look(**changes) -> glyph_pictures.Look:
    """No variation but what is asked for: full black on full white or the reverse."""
    settings = {"rotation": 0.0, "scale": (1.0, 1.0), "stretch": 0.0, "shear": 0.0, "shift": 0.0, "stroke": (0.0, 0.0)}
    settings |= {"contrast": 255, "gradient": 0.0, "noise": 0.0, "tint": 0.0, "colour": False}
    return glyph_pictures.Look(**{**settings, **changes})


def painted(source, n, **changes):
    out = np.empty((n, 3 if changes.get("colour") else 1, 32, 32), np.uint8)
    glyph_pictures.paint(source, 7, look(**changes), out)
    return torch.from_numpy(out)


def ink(pictures):
    """Distance from the corner's grey, which is paper: float [n, 32, 32]."""
    return (pictures[:, 0].float() - pictures[:, 0, :1, :1].float()).abs()


def test_digits(made):
    data = made()
    assert data.class_names == tuple("0123456789") and data.num_classes == 10
    assert data.train.raw.shape == (80, 1, 32, 32) and data.train.raw.dtype == torch.uint8
    assert data.train.y.bincount().tolist() == [8] * 10 and data.test.y.bincount().tolist() == [2] * 10
    assert not rows(data.train, data.class_names) & rows(data.test, data.class_names)
    assert len(data.train.raw[::8, 0, 0, 0].unique()) > 3  # each character has its own papers
    assert made(colour=True).train.raw.shape == (80, 3, 32, 32)


def test_same_bytes_anew_others_with_another_seed(made, tmp_path):
    first = made()
    for file in (tmp_path / "cache").glob("*.safetensors"):
        file.unlink()
    assert made().checksum == first.checksum
    assert made(seed=1).checksum != first.checksum


def test_every_setting_and_version_has_its_own_file(made, tmp_path, monkeypatch):
    part = Examples(torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.arange(2))
    monkeypatch.setattr(glyphs, "choose", lambda choice: dict.fromkeys("abcd"))
    monkeypatch.setattr(glyph_pictures, "make", lambda *given: (part, part.take(part.y)))
    changes = [
        {},
        {"classes": 4},
        {"exclude": ["latin"]},
        {"min_faces": 7},
        {"test_faces": ["cmr10"]},
        {"same": 0.9},
        {"alike": 0.8},
        {"seed": 1},
    ]
    changes += [{"images_per_class": 9}, {"test_per_class": 3}, {"fraction": 0.5}, {"fraction": 0.5, "by": "class"}, {"colour": True}]
    changes += [{key: [0.5, 0.5]} for key in ("scale", "stroke")] + [{"contrast": 1}]
    changes += [{key: 0.5} for key in ("rotation", "stretch", "shear", "shift", "gradient", "noise", "tint")]
    versions = glyphs.versions()
    assert versions.keys() == {"recipe", "fonts", "matplotlib", "pillow", "freetype", "unicode"}
    for change in [*changes, *versions]:
        if isinstance(change, str):
            monkeypatch.setattr(glyphs, "versions", lambda change=change: {**versions, change: "another"})
        made(**(change if isinstance(change, dict) else {}))
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == len(changes) + len(versions)


@pytest.mark.parametrize("by", ["image", "class"])
def test_fractions_lie_inside_each_other(made, by):
    parts = [made(by=by, fraction=f) for f in (1.0, 0.5, 0.25)]
    train = [rows(part.train, part.class_names) for part in parts]
    assert [len(t) for t in train] == ([80, 40, 20] if by == "image" else [80, 40, 16])
    assert train[2] < train[1] < train[0]
    if by == "image":
        assert all(part.num_classes == 10 and torch.equal(part.test.raw, parts[0].test.raw) for part in parts)
    else:
        assert set(parts[2].class_names) < set(parts[1].class_names) and [p.num_classes for p in parts] == [10, 5, 2]


def test_a_picture_does_not_depend_on_what_is_made_with_it(made):
    def some(data):
        return rows(data.train, data.class_names)

    few, more = made(classes="armenian", images_per_class=2), made(classes="armenian", exclude=["digits"], images_per_class=3)
    assert 0 < len(more.class_names) <= len(few.class_names) and some(few) & some(more) == {
        x for x in some(few) if x[0] in more.class_names
    }


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"fraction": 0.1}, "data.fraction=0.1"),
        ({"fraction": 0.0}, "data.fraction=0 leaves no picture"),
        ({"fraction": 0.1, "by": "class"}, "leaves 1"),
        ({"classes": "grek"}, "did you mean greek"),
        ({"exclude": ["digitz"]}, "did you mean digits"),
        ({"exclude": ["digits"]}, "leaves 0"),
        ({"test_faces": ["Arial"]}, "DejaVuSerif"),
        ({"scale": [2, 1]}, "data.scale=[2, 1]"),
        ({"contrast": 300}, "255"),
    ],
)
def test_refusals(made, error, change, word):
    assert word in error(lambda: made(**change))


def test_more_classes_than_there_are(made, error, monkeypatch):
    have = characters.available(glyphs.fonts())
    monkeypatch.setattr(characters, "available", lambda folder: {c: have[c] for c in "ABCD"})
    assert "only 4" in error(lambda: made(classes=5))
    three = made(classes=3).class_names
    assert set(made(classes=2).class_names) < set(three) and list(three) == sorted(three)


def test_what_draws_alike_is_one_class():
    some = "AB" + "O0b" + "\u0391\u0410\u0392\u0412"  # Greek and Cyrillic capitals after the Latin ones
    have = {c: characters.available(glyphs.fonts())[c] for c in some}
    drawings = glyphs.draw(have)
    prints = glyphs.fingerprints(drawings)
    first = glyphs._firsts(glyphs.alike(prints, prints, 0.995))
    assert [c for c, kept in zip(some, first.tolist()) if kept] == list("ABO0b")
    slow = torch.zeros(len(some), len(some), dtype=torch.bool)
    for i, a in enumerate(prints.double()):
        for j, b in enumerate(prints.double()):
            shared = [(x, y) for x, y in zip(a, b) if x.any() and y.any()]
            slow[i, j] = sum(x @ y / (x.norm() * y.norm()) >= 0.9 for x, y in shared) >= len(shared) / 2
    assert torch.equal(glyphs.alike(prints, prints, 0.9), slow)


def test_excluded_characters_leave_no_look_alike(monkeypatch):
    have = characters.available(glyphs.fonts())
    some = "0123ABCEO\u00b2\u2460\u0410\u0412\u0415\u0416\u041e\u0421\u0417\u042e"
    monkeypatch.setattr(characters, "available", lambda folder: {c: have[c] for c in some})
    left = glyphs.choose(choice(exclude=("digits", "latin")))
    assert list(left) == ["\u0416", "\u042e"]  # Zhe, Yu: not A, Ve, Ie, O, Es, Ze, which look like A B E O C 3


def test_contaminated_by_unicode():
    have = characters.available(glyphs.fonts())
    digits, latin = characters.named("digits", have), characters.named("latin", have)
    bad = characters.contaminated(have, digits, True)
    assert {*"²¼①𝟘"} <= bad and {"\u2780", "\u2167", "\u0ed1"} & have.keys() <= bad and "A" not in bad
    assert {"\u212a", "\u2102", "\u1d2c"} & have.keys() <= characters.contaminated(have, latin, False)
    assert not any(unicodedata.category(c)[0] in "CMZ" for c in have) and "\u2102" in have


def test_faces_held_out_for_the_test(monkeypatch, made):
    seen = []
    monkeypatch.setattr(glyph_pictures, "paint", lambda source, seed, look, out: seen.append((len(source), len(out))) or out.fill(0))
    made(test_faces=["cmr10", "DejaVuSans"])
    assert sorted(seen) == [(2, 2)] * 10 + [(19, 8)] * 10


@pytest.mark.parametrize("size", [4, 60])
def test_ink_stays_inside_and_is_seen(size):
    source = np.zeros((2, 64, 64), np.uint8)
    source[0, 2 : 2 + size, 2 : 2 + size] = 255  # at a corner
    source[1, 30 : 30 + 4, 2 : 2 + size] = 255
    pictures = painted(source, 400, rotation=30.0, scale=(0.8, 1.3), shear=0.4, stretch=0.3, shift=40.0)
    seen = ink(pictures)
    edges = torch.stack([seen[:, 0], seen[:, -1], seen[:, :, 0], seen[:, :, -1]])
    assert edges.max() < 16  # a breath of smoothing
    assert seen.flatten(1).amax(1).min() > 100


def test_plain_warp_halves_the_drawing():
    source = np.zeros((1, 64, 64), np.uint8)
    source[0, 16:48, 16:32] = 255
    seen = ink(painted(source, 1))[0]
    assert seen[10:22, 10:14].min() == 255 and (seen[:, :7].max(), seen[:, 17:].max(), seen[:7].max()) == (0, 0, 0)
    assert abs(seen.sum().item() / 255 - 16 * 8) < 2


def test_turns_as_far_as_it_says():
    source = np.zeros((1, 64, 64), np.uint8)
    source[0, 30:34, 8:56] = 255
    seen = ink(painted(source, 500, rotation=20.0)).double()
    place = torch.arange(32).double() - 15.5
    xy, xx, yy = ((seen * w).sum((1, 2)) for w in (place[:, None] * place, (place**2)[None], (place**2)[:, None]))
    angle = torch.rad2deg(0.5 * torch.atan2(2 * xy, xx - yy))
    assert 18.5 < angle.max() < 20.5 and -20.5 < angle.min() < -18.5 and abs(angle.mean()) < 2


def test_stroke_contrast_and_noise():
    source = np.zeros((1, 64, 64), np.uint8)
    source[0, 20:44, 28:36] = 255
    thin, plain, thick = (ink(painted(source, 1, stroke=(s, s))).sum() for s in (-0.5, 0.0, 0.5))
    assert thin < plain < thick
    seen = ink(painted(source, 300, contrast=90)).flatten(1).amax(1)
    assert seen.min() >= 89 and seen.max() > 200
    noisy = painted(source, 300, noise=10.0).float() - painted(source, 300).float()
    assert 0 < noisy.abs().max() <= 10
    coloured = painted(source, 50, colour=True, contrast=90, tint=30.0).float()
    assert (coloured[:, 0] - coloured[:, 1]).abs().max() > 20


def test_recipe():
    """Whoever changes a byte of a picture raises glyphs.RECIPE, or old caches are taken for new ones. No font is in this."""
    source = np.zeros((3, 64, 64), np.uint8)
    source[0, 10:50, 20:30], source[1, 5:60, 5:60], source[2, 30, 30] = 255, np.arange(55), 128
    everything = {"rotation": 15.0, "scale": (0.8, 1.4), "stretch": 0.2, "shear": 0.2, "shift": 4.0, "stroke": (-0.5, 0.5)}
    everything |= {"contrast": 80, "gradient": 30.0, "noise": 20.0, "tint": 40.0, "colour": True}
    digest = hashlib.sha256(painted(source, 64, **everything).numpy().tobytes()).hexdigest()
    assert (glyphs.RECIPE, digest[:16]) == (1, "9c365c054b29d945")
