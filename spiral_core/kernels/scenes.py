"""Drawing of procedural images and signals, image by image, into arrays that are kept."""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import F32, F64, I64, U8, U64, Bools
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.draws import next_double, next_integer, rounded_product


@kernel("boolean(int64, int64, int64, int64, int64)")
def _apart(row: np.int64, column: np.int64, other_row: np.int64, other_column: np.int64, side: int) -> bool:
    """Tell whether two boxes do not overlap."""
    return bool(abs(row - other_row) >= side or abs(column - other_column) >= side)


@kernel("void(uint64[::1], int64[:,::1], int64, int64, int64, int64, int64[:,:,::1], boolean[:,::1])")
def place_distractors(
    state: U64, corners: I64, low: int, high: int, tries: int, side: int, chosen: I64, present: Bools
) -> None:
    """Draw the corners to try of every distractor, and take its first one that overlaps no box placed before it.

    Parameters
    ----------
    state : (STATE_WORDS,) uint64    updated
    corners : (N, 2) int64           of the glyphs
    low, high : int                  corners are uniform in this closed range, per axis
    tries : int                      corners drawn per distractor, whether or not they are needed
    side : int                       of every box
    chosen : (N, S, 2) int64         written; the first corner tried where none is free
    present : (N, S) bool            written: whether there was a free one
    """
    for image in range(chosen.shape[0]):
        for slot in range(chosen.shape[1]):
            present[image, slot] = False
            for attempt in range(tries):
                row, column = next_integer(state, low, high), next_integer(state, low, high)
                if present[image, slot]:
                    continue
                free = _apart(row, column, corners[image, 0], corners[image, 1], side)
                for earlier in range(slot):
                    if present[image, earlier]:
                        free &= _apart(row, column, chosen[image, earlier, 0], chosen[image, earlier, 1], side)
                if free or attempt == 0:
                    chosen[image, slot, 0], chosen[image, slot, 1] = row, column
                present[image, slot] = free


@kernel("void(uint64[::1], int64[::1], float32[:,::1], float64[::1], float32[:,:,::1])")
def shuffle_glyphs(state: U64, labels: I64, glyphs: F32, keys: F64, patches: F32) -> None:
    """Put the pixels of glyphs into random order: that of a number drawn for each of them.

    Parameters
    ----------
    state : (STATE_WORDS,) uint64    updated
    labels : (N,) int64              which glyph
    glyphs : (classes, K) float32
    keys : (K,) float64              overwritten
    patches : (N, S, K) float32      written
    """
    for image in range(patches.shape[0]):
        glyph = glyphs[labels[image]]
        for slot in range(patches.shape[1]):
            patch = patches[image, slot]
            for k in range(keys.size):
                keys[k] = next_double(state)
                patch[k] = np.float32(0)
            # Sorted by its key, pixel number `source` lands where its rank is; most pixels are 0, and need no place.
            for source in range(keys.size):
                if glyph[source] == 0:
                    continue
                rank = 0
                for k in range(keys.size):
                    rank += keys[k] < keys[source]
                for k in range(source):
                    rank += keys[k] == keys[source]
                patch[rank] = glyph[source]


@kernel("void(float32[:,::1], float32, float32[:,::1])")
def spread_fields(fields: F32, swing: float, out: F32) -> None:
    """Scale every row so that its largest size is ``swing``.

    Parameters
    ----------
    fields : (N, E) float32
    swing : float
    out : (N, E) float32       written; may be ``fields``
    """
    for row in range(fields.shape[0]):
        peak = np.float32(0)
        for e in range(fields.shape[1]):
            peak = max(peak, abs(fields[row, e]))
        factor = np.float32(swing / peak)
        for e in range(fields.shape[1]):
            # A plain product would be done before the division, which rounds otherwise.
            out[row, e] = rounded_product(fields[row, e], factor)


@kernel("void(float32[:,:,::1], int64, int64, int64, float32, float32[::1], int64)")
def _add_patch(images: F32, image: int, row: int, column: int, brightness: float, patch: F32, side: int) -> None:
    """Add a square patch times a brightness to one image."""
    for i in range(side):
        for j in range(side):
            images[image, row + i, column + j] += brightness * patch[i * side + j]


@kernel(
    "void(int64[::1], float32[::1], int64[:,::1], int64[:,:,::1], boolean[:,::1], float32[:,:,::1], float32[:,::1],"
    " int64, float32[:,:,::1])"
)
def paint_scene(
    labels: I64,
    amplitudes: F32,
    corners: I64,
    others: I64,
    present: Bools,
    patches: F32,
    glyphs: F32,
    side: int,
    images: F32,
) -> None:
    """Add the glyph and the distractors of each image to its background.

    Parameters
    ----------
    labels : (N,) int64                       which glyph
    amplitudes : (N,) float32                 brightness of everything that is added
    corners : (N, 2) int64                    of the glyphs
    others, present : (N, S, 2) and (N, S)    corners of the distractors, and which of them there are
    patches : (N, S, side^2) float32          their pixels
    glyphs : (classes, side^2) float32
    side : int
    images : (N, H, W) float32                updated
    """
    for image in range(labels.size):
        brightness = amplitudes[image]
        _add_patch(images, image, corners[image, 0], corners[image, 1], brightness, glyphs[labels[image]], side)
        for slot in range(present.shape[1]):
            if present[image, slot]:
                row, column = others[image, slot, 0], others[image, slot, 1]
                _add_patch(images, image, row, column, brightness, patches[image, slot], side)


@kernel("void(int64[:,::1], int64, uint8[:,:,::1])")
def mark_boxes(corners: I64, side: int, masks: U8) -> None:
    """Write masks that are 1 inside one square box and 0 elsewhere.

    Parameters
    ----------
    corners : (N, 2) int64
    side : int
    masks : (N, H, W) uint8    written
    """
    for image in range(masks.shape[0]):
        for row in range(masks.shape[1]):
            for column in range(masks.shape[2]):
                down, right = row - corners[image, 0], column - corners[image, 1]
                masks[image, row, column] = 0 <= down < side and 0 <= right < side


@kernel("void(float64[:,::1], int64, int64[:,::1])")
def place_pieces(keys: F64, length: int, places: I64) -> None:
    """Give pieces of one length places that do not overlap, uniform over all arrangements.

    Parameters
    ----------
    keys : (N, F) float64      random numbers, one for each place that a piece of length 1 may have
    length : int
    places : (N, S) int64      written: first elements; pieces go where the S smallest keys are, in their order
    """
    count = keys.shape[1]
    for row in range(places.shape[0]):
        for slot in range(places.shape[1]):
            best = -1
            for place in range(count):
                taken = False
                for earlier in range(slot):
                    taken |= places[row, earlier] == place
                if not taken and (best < 0 or keys[row, place] < keys[row, best]):
                    best = place
            places[row, slot] = best
        # Each piece of length 1 is stretched to its length, which moves those behind it. Until all are counted, the
        # number of pieces before a place stands above it in the same word.
        for slot in range(places.shape[1]):
            before = 0
            for other in range(places.shape[1]):
                before += places[row, other] % count < places[row, slot]
            places[row, slot] += before * count
        for slot in range(places.shape[1]):
            places[row, slot] = places[row, slot] % count + places[row, slot] // count * (length - 1)


@kernel("void(int64[::1], float32[::1], float32[:,::1], float32[:,::1])")
def scale_pieces(labels: I64, amplitudes: F32, shapes: F32, pieces: F32) -> None:
    """Write the shape of each label times an amplitude.

    Parameters
    ----------
    labels, amplitudes : (N,)
    shapes : (classes, L) float32
    pieces : (N, L) float32         written
    """
    for row in range(labels.size):
        for e in range(pieces.shape[1]):
            pieces[row, e] = shapes[labels[row], e] * amplitudes[row]


@kernel("void(float32[:,::1], int64[:,::1], int64, float32[:,::1])")
def add_pieces(pieces: F32, places: I64, slot: int, signals: F32) -> None:
    """Add one piece to each signal.

    Parameters
    ----------
    pieces : (N, L) float32
    places : (N, S) int64       first elements
    slot : int                  which of the S places
    signals : (N, T) float32    updated
    """
    for row in range(pieces.shape[0]):
        for e in range(pieces.shape[1]):
            signals[row, places[row, slot] + e] += pieces[row, e]


@kernel("void(int64[:,::1], int64, uint8[:,::1])")
def mark_spans(places: I64, length: int, masks: U8) -> None:
    """Write masks that are 1 along the first piece of each signal and 0 elsewhere.

    Parameters
    ----------
    places : (N, S) int64      first elements
    length : int               of a piece
    masks : (N, T) uint8       written
    """
    for row in range(masks.shape[0]):
        for e in range(masks.shape[1]):
            masks[row, e] = 0 <= e - places[row, 0] < length


@kernel("void(uint8[:,:,::1], int64[:,::1], boolean[::1], int64, uint8[:,:,::1])")
def shift_and_flip(images: U8, offsets: I64, flipped: Bools, shift: int, moved: U8) -> None:
    """Flip and shift images; what a shift uncovers is 0.

    Parameters
    ----------
    images : (N, H, W) uint8
    offsets : (2, N) int64      rows and columns, from 0 to twice the shift; ``shift`` itself leaves an image in place
    flipped : (N,) bool         left to right, before the shift
    shift : int
    moved : (N, H, W) uint8     written
    """
    height, width = images.shape[1], images.shape[2]
    for image in range(images.shape[0]):
        down, right = offsets[0, image] - shift, offsets[1, image] - shift
        for row in range(height):
            for column in range(width):
                source, across = row + down, (width - 1 - column if flipped[image] else column) + right
                inside = 0 <= source < height and 0 <= across < width
                moved[image, row, column] = images[image, source, across] if inside else 0
