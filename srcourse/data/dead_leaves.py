"""Dead leaves: an endless source of training images with the statistics of natural ones, and no licence.

Shapes of power-law sizes fall on each other and hide what lies below (Lee, Mumford and Huang, "Occlusion models for
natural images", 2001). Edges, scale invariance and a spectrum near 1/f² come out by themselves; a network trained on
them upscales real photos. Ours carry texture and shading inside, so that there is something to restore between edges.
"""

from collections.abc import Sequence

import numpy as np
import torch

from srcourse.seeds import generator


class DeadLeaves(Sequence):
    """A sequence of synthetic images: item i is a function of (seed, i) alone.

    Parameters
    ----------
    seed : int
    size : int
        Height and width in pixels, at least 16.
    length : int
        How many images ``len()`` reports; any index from 0 on works.

    Examples
    --------
    >>> DeadLeaves(seed=0, size=64)[0].shape
    torch.Size([3, 64, 64])
    """

    def __init__(self, seed: int = 0, size: int = 256, length: int = 1000):
        if size < 16:
            raise ValueError(f"size is {size}: expected at least 16 pixels")
        self.seed, self.size, self.length = seed, size, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        if index < 0:
            index += self.length
        if not 0 <= index < self.length:
            raise IndexError(f"there are {self.length} dead-leaves images, there is no number {index}")
        return _image(self.size, generator(self.seed, index))


def _image(size: int, random: torch.Generator) -> torch.Tensor:
    """Front to back: each leaf fills only what is still empty, until nothing is. (3, size, size) in [0, 1]."""
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=random)))
    fine = 2 * size  # drawn at twice the size and averaged: soft, antialiased edges
    canvas = np.zeros((fine, fine, 3), dtype=np.float32)
    empty = np.ones((fine, fine), dtype=bool)
    smallest, largest = 3.0, fine / 3
    remaining = empty.size
    while remaining > 0.002 * empty.size:
        # density of radii r^-3 between the two ends, by inverting its distribution
        u = rng.random()
        radius = (largest**-2 + u * (smallest**-2 - largest**-2)) ** -0.5
        centre = rng.random(2) * fine
        remaining -= _draw_leaf(canvas, empty, centre, radius, rng)
        smallest = min(smallest * 1.01, fine / 8)  # gaps that stay are closed by ever larger leaves, lying below
    canvas[empty] = 0.5
    image = canvas.reshape(size, 2, size, 2, 3).mean((1, 3))
    return torch.from_numpy(image.clip(0, 1)).permute(2, 0, 1).contiguous()


def _draw_leaf(canvas: np.ndarray, empty: np.ndarray, centre: np.ndarray, radius: float, rng: np.random.Generator) -> int:
    """Draw one leaf where the canvas is still empty; returns how many pixels it took."""
    fine = canvas.shape[0]
    top, left = np.maximum(np.floor(centre - 1.5 * radius), 0).astype(int)
    bottom, right = np.minimum(np.ceil(centre + 1.5 * radius) + 1, fine).astype(int)
    numbers = rng.random(16)
    free = empty[top:bottom, left:right]
    rows, columns = np.nonzero(free)  # late leaves meet few empty pixels in a large square: only these are worked out
    if not rows.size:
        return 0
    y = (rows + top).astype(np.float32) - np.float32(centre[0])
    x = (columns + left).astype(np.float32) - np.float32(centre[1])
    angle = 2 * np.pi * numbers[0]
    u = (np.cos(angle) * x + np.sin(angle) * y) / radius  # leaf coordinates: about -1 ... 1
    v = (np.cos(angle) * y - np.sin(angle) * x) / radius
    flat = 0.4 + 0.9 * numbers[1]
    if numbers[2] < 0.5:
        inside = u * u + (v / flat) ** 2 < 1  # ellipse
    elif numbers[2] < 0.8:
        inside = np.maximum(np.abs(u), np.abs(v) / flat) < 1  # rectangle
    else:
        inside = (v > -0.6) & (v < 1 - 1.6 * np.abs(u))  # triangle
    rows, columns, u, v = rows[inside], columns[inside], u[inside], v[inside]
    if not rows.size:
        return 0
    colour = np.clip(numbers[3] + 0.35 * (numbers[4:7] - 0.5), 0, 1)  # photos: mostly grey level, some colour
    shade = 0.25 * (numbers[7] - 0.5) * u + 0.25 * (numbers[8] - 0.5) * v
    if numbers[9] < 0.6:  # stripes, from coarse to as fine as a pixel
        period = 3 + 24 * numbers[10] ** 2
        bend = 1 + numbers[11]
        wave = np.sin(2 * np.pi * radius / period * (u + 0.3 * bend * v * np.abs(v)))
        shade = shade + 0.16 * numbers[12] * wave
    if numbers[13] < 0.5:  # grain
        shade = shade + 0.08 * numbers[14] * rng.standard_normal(free.shape, dtype=np.float32)[rows, columns]
    canvas[top:bottom, left:right][rows, columns] = colour.astype(np.float32) + shade[:, None].astype(np.float32)
    free[rows, columns] = False
    return rows.size
