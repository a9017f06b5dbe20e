"""Likeness of pairs of small pictures, as scikit-image and NVIDIA's FLIP measure it.

    pip install scikit-image==0.26.0 flip-evaluator==1.7 pillow==13.0.0
    python tests/reference/likeness.py [--out tests/fixtures/likeness]

Writes 8-bit RGB pictures `NAME.png` and `likeness.json`, a list with an object for each pair:

* `reference`, `picture`: file names,
* `psnr_db`: `peak_signal_noise_ratio`, null where the pictures are equal and it is infinite,
* `ssim`: `structural_similarity` with `channel_axis=-1` and all defaults: windows of 7 x 7 equally weighted pixels,
  covariance of a sample, data range 255,
* `flip`: the mean of LDR-FLIP at its default distance, 67 pixels per degree.
"""

import argparse
import json
from pathlib import Path

import flip_evaluator
import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

ROOT = Path(__file__).resolve().parents[2]


def scene(width: int, height: int) -> np.ndarray:
    """A soft background with a disc, a bar and fine stripes: edges, flat parts and colours."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 60 + 150 * x / width
    green = 200 - 120 * y / height
    blue = 128 + 90 * np.sin(x / 5.0) * np.cos(y / 7.0)
    picture = np.stack([red, green, blue], axis=-1)
    disc = (x - width * 0.4) ** 2 + (y - height * 0.55) ** 2 < (min(width, height) * 0.27) ** 2
    picture[disc] = [250, 190, 20]
    picture[int(height * 0.1) : int(height * 0.2), int(width * 0.5) :] = [20, 30, 160]
    picture[:, int(width * 0.85) :: 2] = 255 - picture[:, int(width * 0.85) :: 2]
    return to_bytes(picture)


def to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def blurred(picture: np.ndarray) -> np.ndarray:
    """The mean of 3 x 3 pixels."""
    padded = np.pad(picture.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width, _ = picture.shape
    return to_bytes(sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9)


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draws = np.random.default_rng(0)
    square, wide, least = scene(64, 64), scene(48, 23), scene(7, 7)
    one_off = square.copy()
    one_off[30, 31, 2] += 1
    return {
        "equal": (square, square),
        "one-value": (square, one_off),
        "noise": (square, to_bytes(square + draws.normal(0, 12, square.shape))),
        "blur": (square, blurred(square)),
        "shift": (square, np.roll(square, 2, axis=1)),
        "darker": (square, to_bytes(square * 0.7)),
        "grey": (square, np.repeat(to_bytes(square.mean(axis=-1, keepdims=True)), 3, axis=-1)),
        "wide-noise": (wide, to_bytes(wide + draws.normal(0, 4, wide.shape))),
        "least-window": (least, to_bytes(least * 0.9 + 10)),
        "black-white": (np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)),
        "random": tuple(draws.integers(0, 256, (31, 40, 3), dtype=np.uint8) for _ in range(2)),
    }


def likeness(reference: np.ndarray, picture: np.ndarray) -> dict[str, float | None]:
    equal = np.array_equal(reference, picture)
    as_float = [(one / 255.0).astype(np.float32) for one in (reference, picture)]
    _, flip, _ = flip_evaluator.evaluate(*as_float, "LDR", applyMagma=False)
    return {
        "psnr_db": None if equal else float(peak_signal_noise_ratio(reference, picture)),
        "ssim": float(structural_similarity(reference, picture, channel_axis=-1)),
        "flip": float(flip),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/likeness", help="the folder to write to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, (reference, picture) in pairs().items():
        files = f"{name}-reference.png", f"{name}.png"
        for file, pixels in zip(files, (reference, picture), strict=True):
            Image.fromarray(pixels).save(out / file, optimize=True)
        entries.append({"reference": files[0], "picture": files[1]} | likeness(reference, picture))
    (out / "likeness.json").write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
