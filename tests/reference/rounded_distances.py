"""The distance that cache decisions rest on, as torch rounds it in bfloat16, float16 and float32.

    python tests/reference/rounded_distances.py [--out tests/fixtures/cache]

Writes pairs of a previous and a current tensor, stacked by group, and what torch's CPU kernels make of

    ((previous - current).abs().mean() / previous.abs().mean()).item()

when every operation works in the tensors' own dtype, as in cache-dit:

* `rounded_distances.safetensors`: `GROUP.previous` and `GROUP.current`, both `[pairs, 2, 5, 8]`, or
  `[pairs, 2, 64, 32]` where the group is called `large`,
* `rounded_distances.json`: for every group its `dtype`, `kind` and `distances`, one per pair. Numbers are exact;
  "inf" and "nan" stand for themselves. `cases` names the pairs of the groups called `special`.

Torch and other libraries add up in different orders, so a mean may differ in the last bit of float32. Pairs for
which that could move a rounded mean or the quotient to the next bfloat16 or float16 number are drawn again: in
these dtypes a right implementation gives exactly the numbers here, in float32 it comes within 1e-6 of them,
relatively (1e-5 where the tensors are subnormal).
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
SMALL, LARGE = (2, 5, 8), (2, 64, 32)
SUM_ERROR = 1e-5
"""Relative; more than float32 sums of 4096 magnitudes differ by, even added one after another."""

Pair = tuple[torch.Tensor, torch.Tensor]


class Draws:
    """Random pairs of one dtype. Values are drawn in float32, so all dtypes see like tensors."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(0)
        self.smallest_normal = torch.finfo(dtype).smallest_normal

    def normal(self, scale: float, shape: tuple[int, ...] = SMALL) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator).mul(scale)

    def uniform(self, shape: tuple[int, ...] = SMALL) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator)

    def between(self, low: float, high: float) -> float:
        """Log-uniform."""
        return math.exp(math.log(low) + self.uniform((1,)).item() * math.log(high / low))

    def rounded(self, previous: torch.Tensor, current: torch.Tensor) -> Pair:
        return previous.to(self.dtype), current.to(self.dtype)

    def related(self, shape: tuple[int, ...] = SMALL) -> Pair:
        """What a residual and its successor look like: a relative change of 0.001 to 2."""
        scale = self.between(1e-3, 1e2)
        previous = self.normal(scale, shape)
        return self.rounded(previous, previous + self.normal(scale * self.between(1e-3, 2.0), shape))

    def large(self) -> Pair:
        return self.related(LARGE)

    def unrelated(self) -> Pair:
        return self.rounded(self.normal(self.between(1e-2, 1e1)), self.normal(self.between(1e-2, 1e1)))

    def near_equal(self) -> Pair:
        """About a third of the elements one representable number further from zero."""
        previous = self.normal(self.between(1e-2, 1e1)).to(self.dtype)
        bits = previous.view(torch.int32 if self.dtype == torch.float32 else torch.int16)
        return previous, (bits + (self.uniform() < 0.3)).to(bits.dtype).view(self.dtype)

    def sparse(self) -> Pair:
        """Nine in ten elements zero."""
        previous, current = self.related()
        return previous * (self.uniform() < 0.1), current * (self.uniform() < 0.1)

    def subnormal(self) -> Pair:
        scale = self.smallest_normal * self.between(0.1, 1.0)
        previous = torch.randn(SMALL, generator=self.generator, dtype=torch.float64) * scale
        change = torch.randn(SMALL, generator=self.generator, dtype=torch.float64) * scale
        return self.rounded(previous, previous + change * self.between(0.1, 1.0))

    def special(self) -> dict[str, Pair]:
        zeros, values = torch.zeros(SMALL), self.normal(1.0)
        largest = torch.full(SMALL, torch.finfo(self.dtype).max)

        def with_one(value: float) -> torch.Tensor:
            changed = values.clone()
            changed[1, 2, 3] = value
            return changed

        pairs = {
            "nothing to nothing": (zeros, zeros),
            "nothing to something": (zeros, values),
            "something to nothing": (values, zeros),
            "no change": (values, values),
            "negative zeros": (-zeros, zeros),
            "opposite sign": (values, -values),
            "NaN in the previous": (with_one(math.nan), values),
            "NaN in the current": (values, with_one(math.nan)),
            "infinity in the previous": (with_one(math.inf), values),
            "infinity in the current": (values, with_one(math.inf)),
            "infinity in both": (with_one(math.inf), with_one(math.inf)),
            "overflowing difference": (largest, -largest),
            "overflowing quotient": (torch.full(SMALL, self.smallest_normal), largest / 4),
        }
        return {name: self.rounded(*pair) for name, pair in pairs.items()}


KINDS: dict[str, tuple[Callable[[Draws], Pair], int]] = {
    "related": (Draws.related, 44),
    "near_equal": (Draws.near_equal, 16),
    "unrelated": (Draws.unrelated, 12),
    "sparse": (Draws.sparse, 12),
    "subnormal": (Draws.subnormal, 12),
    "large": (Draws.large, 2),
}


def distance(previous: torch.Tensor, current: torch.Tensor) -> float:
    return ((previous - current).abs().mean() / previous.abs().mean()).item()


def does_not_depend_on_order(previous: torch.Tensor, current: torch.Tensor) -> bool:
    """Whether means that are off by `SUM_ERROR` still give the same rounded distance."""
    dtype = previous.dtype
    if dtype == torch.float32:
        return True
    expected = distance(previous, current)
    changes = (previous - current).abs().double().mean()
    magnitude = previous.abs().double().mean()
    errors = (-SUM_ERROR, 0.0, SUM_ERROR)

    def quotient(change: float, other: float) -> torch.Tensor:
        rounded = [(mean * (1 + error)).to(dtype).float() for mean, error in ((changes, change), (magnitude, other))]
        return rounded[0] / rounded[1]

    quotients = [quotient(change, other) * (1 + last) for change in errors for other in errors for last in errors]
    return all(value.to(dtype).item() == expected for value in quotients)


def draw(draws: Draws, kind: Callable[[Draws], Pair], count: int) -> tuple[list[Pair], int]:
    """`count` pairs whose distance does not depend on the order of sums, and how many were refused."""
    pairs, refused = [], 0
    while len(pairs) < count:
        pair = kind(draws)
        if does_not_depend_on_order(*pair):
            pairs.append(pair)
        else:
            refused += 1
    return pairs, refused


def json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/cache", help="the folder to write to")
    out = parser.parse_args().out
    torch.set_num_threads(1)

    tensors, groups = {}, {}
    for dtype_name, dtype in DTYPES.items():
        draws = Draws(dtype)
        special = draws.special()
        for kind, (draw_pair, count) in KINDS.items():
            pairs, refused = draw(draws, draw_pair, count)
            groups[f"{dtype_name}.{kind}"] = pairs, {"dtype": dtype_name, "kind": kind}
            print(f"{dtype_name}.{kind}: {count} pairs, {refused} refused")
        about = {"dtype": dtype_name, "kind": "special", "cases": list(special)}
        groups[f"{dtype_name}.special"] = list(special.values()), about

    description = {}
    for name, (pairs, about) in groups.items():
        tensors[f"{name}.previous"] = torch.stack([previous for previous, _ in pairs])
        tensors[f"{name}.current"] = torch.stack([current for _, current in pairs])
        description[name] = about | {"distances": [json_number(distance(*pair)) for pair in pairs]}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "rounded_distances.safetensors")
    (out / "rounded_distances.json").write_text(json.dumps(description, indent=1) + "\n")


if __name__ == "__main__":
    main()
