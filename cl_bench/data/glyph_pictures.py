"""Pictures of characters from their drawings: warped, thickened, on paper, with noise.

Everything is whole numbers (or float64 sums and products, the same on every machine), and picture i of a character depends on
the seed, the character and i alone: what else is made with it changes no byte of it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from cl_bench.core.seeds import fold
from cl_bench.core.types import Examples
from cl_bench.data import characters
from cl_bench.data.glyphs import PAD, SIDE, SOURCE, Array, Choice, Drawings

MARGIN = 2.0  # pixels of a picture around the ink, so that nothing is cut off
DRAWS = 19  # random numbers a picture, noise apart


@dataclass(frozen=True)
class Look:
    """How far pictures of a character differ; conf/data/glyphs.yaml says in which units."""

    rotation: float
    scale: tuple[float, float]
    stretch: float
    shear: float
    shift: float
    stroke: tuple[float, float]
    contrast: int
    gradient: float
    noise: float
    tint: float
    colour: bool


def make(drawings: Drawings, choice: Choice, look: Look, train: int, test: int) -> tuple[Examples, Examples]:
    """So many pictures of each class, class by class; with test_faces those draw the test, and nothing else."""
    held = set(choice.test_faces)
    parts = []
    for purpose, count in (("train", train), ("test", test)):
        raw = np.empty((len(drawings), count, 3 if look.colour else 1, SIDE, SIDE), np.uint8)

        def fill(character: str, out: Array, purpose: str = purpose) -> None:
            faces = [f for f in drawings[character] if not held or (f in held) == (purpose == "test")]
            faces.sort(key=lambda f: fold(choice.seed, "glyph face", ord(character), characters.FACES.index(f)))
            source = np.stack([drawings[character][f] for f in faces])
            paint(source, fold(choice.seed, f"glyph {purpose}", ord(character)), look, out)

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, drawings, raw))
        y = torch.arange(len(drawings)).repeat_interleave(count)
        parts.append(Examples(torch.from_numpy(raw).flatten(0, 1), y))
    return parts[0], parts[1]


def paint(source: Array, seed: int, look: Look, out: Array) -> None:
    """Fill out [n, channels, SIDE, SIDE] from drawings [faces, SOURCE, SOURCE], the faces in turn."""
    n, channels = out.shape[:2]
    bits = np.random.PCG64(seed).random_raw(n * DRAWS).reshape(n, DRAWS)  # raw words: numpy promises these, and not its distributions
    u = ((bits >> np.uint64(40)).astype(np.float64) / 2**24).T  # [DRAWS, n] in [0, 1)
    face = np.arange(n) % len(source)
    ink = _stroke(_warp(source, face, u[:6], look), _between(u[6], *look.stroke, 256))

    span = 255 - look.contrast
    low = _between(u[7], 0, span, 1)
    high = low + look.contrast + _between(u[8], 0, 1, 256) * (span - low) // 256
    dark = (u[9] < 0.5)[:, None]  # ink on paper, or the other way round
    tint = _between(u[10:16], -look.tint, look.tint, 1) if channels == 3 else np.zeros((2, n), np.int32)
    foreground = (np.where(dark, low[:, None], high[:, None]) + tint[:channels].T).astype(np.int32)  # [n, channels]
    background = (np.where(dark, high[:, None], low[:, None]) + tint[channels:].T).astype(np.int32)
    slope = _between(u[16:18], -look.gradient, look.gradient, 1)  # [2, n]: grey levels from the middle to an edge
    place = 2 * np.arange(SIDE, dtype=np.int32) - SIDE + 1
    paper = (slope[0][:, None, None] * place + slope[1][:, None, None] * place[:, None]) // SIDE  # [n, SIDE, SIDE]
    words = np.random.PCG64(fold(seed, "noise")).random_raw(n * channels * SIDE * SIDE // 8)
    noise = words.astype("<u8").view(np.uint8).reshape(out.shape).astype(np.int32) - 128
    noise *= _between(u[18], 0, look.noise, 1)[:, None, None, None]
    noise >>= 7
    ink += ink >> 7  # 0..256
    noise += (foreground - background)[:, :, None, None] * ink[:, None] >> 8
    noise += background[:, :, None, None] + paper[:, None]
    np.clip(noise, 0, 255, out=noise)
    out[:] = noise


def _between(u: Array, low: float, high: float, steps: int) -> Array:
    """u in [0, 1) to whole numbers of 1/steps between low and high."""
    return np.rint((low + u * (high - low)) * steps).astype(np.int32)


def _warp(source: Array, face: Array, u: Array, look: Look) -> Array:
    """int32 [n, SIDE, SIDE], 0..255: turned, stretched, sheared, scaled and shifted, with the ink inside the picture."""
    half = look.rotation * (np.pi / 360) * (2 * u[0] - 1)  # tan(t / 2) is nearly t / 2; without tan all machines agree
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    scale = (look.scale[0] + (look.scale[1] - look.scale[0]) * u[1]) * SIDE / SOURCE
    wide, lean = 1 + look.stretch * (2 * u[2] - 1), look.shear * (2 * u[3] - 1)
    m = scale * np.stack(
        [cos * wide, cos * lean - sin / wide, sin * wide, sin * lean + cos / wide]
    )  # [[m0, m1], [m2, m3]], source to picture
    x0, x1, y0, y1 = _box(source)[:, face]
    corners_x = np.stack([m[0] * x + m[1] * y for x in (x0, x1) for y in (y0, y1)])
    corners_y = np.stack([m[2] * x + m[3] * y for x in (x0, x1) for y in (y0, y1)])
    room = SIDE - 2 * MARGIN
    fit = np.minimum(1, room / np.maximum(np.ptp(corners_x, 0), np.ptp(corners_y, 0)))
    m, corners_x, corners_y = m * fit, corners_x * fit, corners_y * fit
    dx, dy = (
        np.minimum(np.maximum(look.shift * (2 * draw - 1), -room / 2 - c.min(0)), room / 2 - c.max(0))
        for draw, c in ((u[4], corners_x), (u[5], corners_y))
    )
    inverse = np.stack([m[3], -m[1], -m[2], m[0]]) / (m[0] * m[3] - m[1] * m[2])
    a, b, c, d = (np.rint(row * 65536).astype(np.int32)[:, None, None] for row in inverse)
    middle = (SIDE - 1) / 2
    start_x = np.rint(((SOURCE - 1) / 2 - inverse[0] * (middle + dx) - inverse[1] * (middle + dy)) * 65536).astype(np.int32)
    start_y = np.rint(((SOURCE - 1) / 2 - inverse[2] * (middle + dx) - inverse[3] * (middle + dy)) * 65536).astype(np.int32)
    across, down = np.arange(SIDE, dtype=np.int32), np.arange(SIDE, dtype=np.int32)[:, None]
    x = a * across + b * down + start_x[:, None, None]  # in 1/65536 pixels of the source
    y = c * across + d * down + start_y[:, None, None]
    padded = np.pad(source.astype(np.int32), ((0, 0), (PAD, PAD), (PAD, PAD)))
    soft = padded.copy()
    soft[:, 1:-1, 1:-1] = sum(padded[:, 1 + i : SOURCE + 3 + i, 1 + j : SOURCE + 3 + j] * k for i, j, k in _SOFT) // 16
    side = SOURCE + 2 * PAD
    at = np.clip(y >> 16, -PAD, SOURCE) * side
    at += np.clip(x >> 16, -PAD, SOURCE)
    at += (face * side * side + PAD * side + PAD).astype(np.int32)[:, None, None]
    right, below = (x >> 8) & 255, (y >> 8) & 255
    flat = soft.reshape(-1)
    upper = flat.take(at) * (256 - right) + flat.take(at + 1) * right
    at += side
    lower = flat.take(at) * (256 - right) + flat.take(at + 1) * right
    result: Array = (upper * (256 - below) + lower * below) >> 16
    return result


_SOFT = [(i, j, (2 - abs(i)) * (2 - abs(j))) for i in (-1, 0, 1) for j in (-1, 0, 1)]  # a picture's pixel is two of the source wide


def _box(source: Array) -> Array:
    """float64 [4, faces]: left, right, top, bottom of the ink from the middle of the drawing, edges included."""
    boxes = []
    for drawing in source:
        columns, rows = (np.flatnonzero(drawing.any(axis)) for axis in (0, 1))
        boxes.append((columns[0] - 0.5, columns[-1] + 0.5, rows[0] - 0.5, rows[-1] + 0.5))
    return np.array(boxes).T - (SOURCE - 1) / 2


def _stroke(ink: Array, by: Array) -> Array:
    """by 256 takes each pixel's largest neighbour (thicker), by -256 the smallest (thinner)."""
    around = np.pad(ink, ((0, 0), (1, 1), (1, 1)), mode="edge")
    sides = around[:, :-2, 1:-1], around[:, 2:, 1:-1], around[:, 1:-1, :-2], around[:, 1:-1, 2:]
    thick, thin = ink.copy(), ink.copy()
    for side in sides:
        np.maximum(thick, side, out=thick)
        np.minimum(thin, side, out=thin)
    by = by[:, None, None]
    result: Array = ink + (((thick - ink) * np.maximum(by, 0) + (ink - thin) * np.minimum(by, 0)) >> 8)
    return result
