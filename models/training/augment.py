"""Augmented pictures: every drawing a little turned, scaled, moved and perhaps mirrored, on white."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

MAX_TURN_RADIANS = 0.18
MIN_SCALE, MAX_SCALE = 0.82, 1.0
MAX_SHIFT = 0.08
"""As a part of half the picture's side."""

MIRRORED_SHARE = 0.5


class EmojiPictures:
    """The data set in memory, handing out random batches."""

    def __init__(self, path: Path):
        stored = np.load(path)
        pictures = torch.tensor(stored["pictures"].astype(np.float32)).permute(0, 3, 1, 2).contiguous()
        # Premultiplied, so that interpolation at an outline does not mix in the colour of transparent pixels.
        pictures[:, :3] *= pictures[:, 3:]
        self.pictures = pictures  # [n, 4, 64, 64]
        self.classes = torch.tensor(stored["classes"])

    def batch(self, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Random pictures `[size, 3, 64, 64]` in -1..1, and their classes `[size]`."""
        chosen = torch.randint(0, len(self.pictures), (size,), generator=generator)
        grid = functional.affine_grid(
            random_transforms(size, generator), [size, *self.pictures.shape[1:]], align_corners=False
        )
        moved = functional.grid_sample(self.pictures[chosen], grid, align_corners=False, mode="bilinear")
        on_white = moved[:, :3] + (1 - moved[:, 3:])
        return on_white * 2 - 1, self.classes[chosen]


def random_transforms(size: int, generator: torch.Generator) -> torch.Tensor:
    """Affine maps `[size, 2, 3]` from places in the result to places in the drawing."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(size, generator=generator) * (high - low) + low

    turn = uniform(-MAX_TURN_RADIANS, MAX_TURN_RADIANS)
    scale = 1 / uniform(MIN_SCALE, MAX_SCALE)
    mirror = torch.where(torch.rand(size, generator=generator) < MIRRORED_SHARE, -1.0, 1.0)
    shift_x = uniform(-MAX_SHIFT, MAX_SHIFT)
    shift_y = uniform(-MAX_SHIFT, MAX_SHIFT)
    return torch.stack(
        [
            torch.stack([mirror * scale * torch.cos(turn), -scale * torch.sin(turn), shift_x], 1),
            torch.stack([mirror * scale * torch.sin(turn), scale * torch.cos(turn), shift_y], 1),
        ],
        1,
    )
