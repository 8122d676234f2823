"""Videos that are nearly the same: perceptual hashes of frames, compared across a split.

The hash of a frame is dHash (Krawetz, "Kind of Like That", 2013) with 16x16 bits: whether each of
16x17 mean grey values is brighter than the one at its left. It outlasts other encodings, sizes,
brightness and captions; a crop of more than some per cent is another picture.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from runtime.figures import evenly

N_BITS = 256
FRAMES = 8  # of each video, evenly placed
# Frames of so little contrast are alike, whatever they are of.
MIN_CONTRAST = 8.0
# Two videos are nearly the same if the median over the frames of one of the bits in which they
# differ from the nearest of the other is at most this. Of 163 clips of surveillance cameras, copies
# by other encoders and sizes had 0 to 20, and the nearest of 12394 pairs of other recordings 32.
NEAR_BITS = 28
# Comparisons of frames, of more of which fewer frames of each video are compared.
MOST_COMPARISONS = 2_000_000_000
CHUNK = 4096


class Near(NamedTuple):
    """Numbers of a video in the one and in the other list, and bits in which they differ."""

    one: int
    other: int
    bits: float
    is_mirrored: bool


def frame_hash(frame: np.ndarray) -> np.ndarray | None:
    """uint8 (H, W, 3) -> (256,) bool, None for a frame with next to no contrast."""
    grey = Image.fromarray(frame).convert('L')
    if np.asarray(grey).std() < MIN_CONTRAST:
        return None
    small = np.asarray(grey.resize((17, 16), Image.Resampling.BOX)).astype(np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()


def hashes(frames: Sequence[np.ndarray]) -> np.ndarray:
    """(n, 256) bool of the frames that have contrast."""
    found = [bits for bits in map(frame_hash, frames) if bits is not None]
    return np.array(found, dtype=bool).reshape(-1, N_BITS)


def mirrored(bits: np.ndarray) -> np.ndarray:
    """(n, 256) -> the hashes of the mirrored frames, but where neighbours are equally bright."""
    return ~bits.reshape(-1, 16, 16)[:, :, ::-1].reshape(-1, N_BITS)


def near_duplicates(ones: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> list[Near]:
    """The nearest of `others` for each of `ones`, (n, 256) hashes of videos each, where it is
    nearly the same, the most alike first."""
    n_pairs = max(1, len(ones) * len(others))
    n_frames = max(1, min(FRAMES, int((MOST_COMPARISONS / n_pairs) ** 0.5)))
    ones, others = ([bits[evenly(0, len(bits) - 1, n_frames)] for bits in videos]
                    for videos in (ones, others))
    owners = np.repeat(np.arange(len(others)), [len(bits) for bits in others])
    found = []
    if not len(owners):
        return []
    table = np.concatenate(others).astype(np.float32) * 2 - 1
    begins = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    for number, bits in enumerate(ones):
        best = min((_nearest(bits if not flip else mirrored(bits), table, begins, flip)
                    for flip in (False, True)), key=lambda entry: entry[0]) if len(bits) else None
        if best and best[0] <= NEAR_BITS:
            found.append(Near(number, int(owners[begins[best[1]]]), best[0], best[2]))
    return sorted(found, key=lambda near: near.bits)


def _nearest(bits: np.ndarray, table: np.ndarray, begins: np.ndarray, flip: bool
             ) -> tuple[float, int, bool]:
    """(bits, place in `begins`, flip) of the nearest video of the table (frames, 256) of signs."""
    signs = bits.astype(np.float32) * 2 - 1
    # The scalar product of signs is 256 less twice the bits that differ.
    alike = np.maximum.reduceat(signs @ table.T, begins, axis=1)
    distance = np.median((N_BITS - alike) / 2, axis=0)
    place = int(distance.argmin())
    return float(distance[place]), place, flip
