"""Which characters the fonts of matplotlib can draw, chosen by their Unicode names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import nearest

DEJAVU = ("", "-Bold", "-Oblique", "-BoldOblique"), ("", "-Bold", "-Italic", "-BoldItalic")
# Whole Unicode fonts. The rest draws parts of symbols, a box for every code point, or puts its letters at other codes.
FACES = (
    *(f"DejaVuSans{style}" for style in DEJAVU[0]),
    *(f"DejaVuSansMono{style}" for style in DEJAVU[0]),
    *(f"DejaVuSerif{style}" for style in DEJAVU[1]),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmti10", "cmss10", "cmtt10"),
)
DIGITS = "0123456789"
ASCII = frozenset(map(ord, DIGITS + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))  # TeX's codes agree with Unicode here only
KINDS = {"letters": "L", "symbols": "S", "punctuation": "P"}  # Unicode's general categories
NEVER = ("C", "M", "Z")  # control and private codes, marks that sit on other characters, spaces


def available(folder: Path) -> dict[str, tuple[str, ...]]:
    """Character -> names of the faces that have it, by code point."""
    from matplotlib.ft2font import FT2Font

    found: dict[int, list[str]] = {}
    for face in FACES:
        codes = FT2Font(str(folder / f"{face}.ttf")).get_charmap()
        for code in ASCII.intersection(codes) if face.startswith("cm") else codes:
            found.setdefault(code, []).append(face)
    return {chr(code): tuple(faces) for code, faces in sorted(found.items()) if unicodedata.category(chr(code))[0] not in NEVER}


def named(word: str, characters: Iterable[str]) -> set[str]:
    """all, digits (0-9), letters, symbols, punctuation, or the first word of Unicode names: latin, greek, braille, ..."""
    if word == "all":
        return set(characters)
    if word == "digits":
        return set(DIGITS).intersection(characters)
    if word in KINDS:
        return {c for c in characters if unicodedata.category(c)[0] == KINDS[word]}
    return {c for c in characters if _first_word(c) == word}


def check_words(setting: str, words: Sequence[str], characters: Iterable[str]) -> None:
    """Refuse what names nothing."""
    count = Counter(map(_first_word, characters))
    common = [word for word, n in count.most_common(12) if word]
    unknown = [w for w in words if w not in ("all", "digits", *KINDS) and not count[w]]
    if unknown:
        allowed = nearest(unknown[0], ["all", "digits", *KINDS, *common])
        raise ConfigError(f"{setting}: no character is named {unknown[0]}; give a first word of Unicode names; {allowed}, ...")


def contaminated(characters: Iterable[str], excluded: set[str], digits: bool) -> set[str]:
    """Those that Unicode builds from an excluded one (É, Ｅ, ℰ, ½ of E, 1, 2) and, with digits, all that count (➀, Ⅷ)."""
    return {
        c for c in characters if excluded & set(unicodedata.normalize("NFKD", c)) or (digits and unicodedata.numeric(c, None) is not None)
    }


def _first_word(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0].lower()
