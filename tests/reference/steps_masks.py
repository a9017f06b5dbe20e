"""Step masks of cache-dit: the named policies for every number of steps, and masks from given bins.

    python tests/reference/steps_masks.py [--out tests/fixtures/cache/steps_masks.json]

Writes masks as run lengths: computed and reusable runs in turn, the first one computed.

* `policies`: policy -> number of steps (4, 6 and 8 to 400) -> runs,
* `bins`: cases of `compute_bins`, `cache_bins` and `total_steps` (null: the sum of both) with their `runs`; null
  where cache-dit refuses because the bins sum to less than `total_steps`.

The script checks that cache-dit defines no policy for 1, 2, 3, 5 and 7 steps.
"""

import argparse
import json
import os
import random
from itertools import groupby
from pathlib import Path

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from cache_dit import steps_mask

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ("slow", "medium", "fast", "ultra")
STEPS = (4, 6, *range(8, 401))
UNDEFINED_STEPS = (1, 2, 3, 5, 7)
RANDOM_BINS = 28

CHOSEN_BINS = [
    # compute bins, cache bins, steps
    ([6, 1, 1, 1, 1], [1, 3, 4, 5, 4], 27),  # exactly the sum
    ([6, 1, 1, 1, 1], [1, 3, 4, 5, 4], 28),  # one step too few
    ([6, 1, 1, 1, 1], [1, 3, 4, 5, 4], None),
    ([6, 1, 1, 1, 1], [1, 3, 4, 5, 4], 20),  # cut inside a reusable run: the last step may be reused
    ([4], [4], 8),
    ([4], [4], 6),
    ([4], [4], 4),  # cut to computed steps only
    ([4], [4], 2),
    ([1], [27], 28),
    ([8, 8], [1], 17),  # more computed runs: neighbours merge
    ([1, 2, 3], [4], 10),
    ([2], [3, 4, 5], 14),  # more reusable runs: likewise
    ([2], [3, 4, 5], 9),
    ([5, 5], [5, 5], 1),
]


def runs(mask: list[int]) -> list[int]:
    assert mask[0] == 1, "a mask starts with a computed step"
    return [len(list(steps)) for _, steps in groupby(mask)]


def policy_masks() -> dict[str, dict[str, list[int]]]:
    for steps in UNDEFINED_STEPS:
        for policy in POLICIES:
            try:
                steps_mask(total_steps=steps, mask_policy=policy)
            except AssertionError:
                continue
            raise SystemExit(f"cache-dit defines {policy} for {steps} steps: new in this version")
    return {
        policy: {str(steps): runs(steps_mask(total_steps=steps, mask_policy=policy)) for steps in STEPS}
        for policy in POLICIES
    }


def bins_case(compute: list[int], cache: list[int], steps: int | None) -> dict:
    case = {"compute_bins": compute, "cache_bins": cache, "total_steps": steps}
    try:
        mask = steps_mask(compute_bins=list(compute), cache_bins=list(cache), total_steps=steps)
    except AssertionError:
        return case | {"runs": None}
    return case | {"runs": runs(mask)}


def random_bins():
    """Bins of up to six runs each; about one case in seven asks for more steps than they sum to."""
    choice = random.Random(0)
    for _ in range(RANDOM_BINS):
        compute = [choice.randint(1, 8) for _ in range(choice.randint(1, 6))]
        cache = [choice.randint(1, 6) for _ in range(choice.randint(1, 6))]
        total = sum(compute) + sum(cache)
        yield compute, cache, choice.choice([None, *(choice.randint(1, total) for _ in range(5)), total + 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/cache/steps_masks.json")
    out = parser.parse_args().out
    masks = {"policies": policy_masks(), "bins": [bins_case(*case) for case in (*CHOSEN_BINS, *random_bins())]}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(masks, separators=(",", ":")) + "\n")
    print(f"{len(STEPS) * len(POLICIES)} masks of policies, {len(masks['bins'])} of bins, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
