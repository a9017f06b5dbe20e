"""TeaCache and MagCache on the tiny DiT, and the numbers their settings are fitted to.

    python tests/reference/tea_cache.py [--out tests/fixtures/cache]

Neither cache comes with diffusers or cache-dit for this model; the rules are vLLM-Omni 0.30's, written anew in
`TeaCache` and `MagCache` below. (Put on this model, vLLM-Omni's own hooks skip the same steps and end in the same
bits, as far as they know the options.) Both skip the whole stack of blocks: a computed step keeps what the stack
added to the hidden states, a skipped step adds that again. Model, noise, labels, guidance and schedulers are those
of `tiny_dit_goldens.py`, with conditional and unconditional rows in one batch that is decided on as a whole.

Writes `tea_cache.json` with

* `tea_cache` and `mag_cache`, lists of runs with `name`, `scheduler`, `steps`, `config` (keys of a request's cache
  config), `cached_steps`, `margin` (how far the closest decision was from turning; null where nothing was compared),
  to compare by eye `latents_sum` and `latents_norm`, and
  - TeaCache: `distances`, step -> relative distance between this and the last step's modulated input, and
    `accumulated`, step -> the sum that was compared with the threshold, both for the steps that were compared,
  - MagCache: `resampled_ratios`, one per step; `retention_steps`, the number of first steps that are not looked at;
    `accumulated_errors`, step -> the error that was compared with the threshold, before it was set back,
* `resampled`: cases of `from` and `to`: the indices into `from` magnitude ratios that `to` steps take,
* `uncached`: per step of an uncached run of 28 DDIM steps (null at step 0)
  - `modulated_distances`: as TeaCache computes them at every step,
  - `residual_changes`: mean|R - R_last| / mean|R_last| of the stack's residual R,
  - `output_changes`: sum|H - H_last| / (sum|H_last| + 1e-6) of the hidden states H after the stack, which is what
    vLLM-Omni's estimator fits coefficients to,
  - `magnitude_ratios`, `magnitude_deviations`, `cosine_distances`: as vLLM-Omni calibrates MagCache, over all tokens
    of the batch: mean and standard deviation of |R| / (|R_last| + 1e-8), and mean of 1 - cos(R, R_last);
  `fitted` holds numpy's polynomials of degree 4 from distances to the two kinds of changes, highest degree first,

and `tea_cache.safetensors` with `latents.NAME` and `latents.uncached.SCHEDULER.STEPS`, all `[2, 4, 8, 8]`.
"""

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file
from tiny_dit_goldens import ROOT, TinyDit, size_of

SAFE_MARGIN = 2e-4
"""Sums in another order move a distance by about 1e-6; float32 sums of MagCache's errors would be off by less."""

FLUX_COEFFICIENTS = [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861]
QWEN_COEFFICIENTS = [-450.0, 280.0, -45.0, 3.2, -0.02]
SUM_OF_DISTANCES = [0.0, 0.0, 0.0, 1.0, 0.0]

RISING_RATIOS = [1.0, 1.08, 1.05, 1.04, 1.03, 1.02, 1.015, 1.01, 1.005, 1.0]
MIXED_RATIOS = [1.0, 0.97, 1.05, 1.02, 0.96, 1.03, 0.99, 1.04, 0.98, 1.01, 1.02, 0.97, 1.03]
FLUX_RATIOS = [
    *(1.0, 1.07313, 1.21035, 1.04432, 1.06818, 1.05547, 1.0183, 1.03405, 1.02574, 1.03042, 1.02739, 1.01955, 1.01585),
    *(1.02439, 1.01154, 1.01377, 1.00994, 1.01444, 1.00839, 1.02269, 1.0007, 1.00714, 1.00484, 1.01381, 1.00426),
    *(0.99764, 1.00778, 1.00233),
]


@dataclass
class TeaCache:
    """Skips while the rescaled distances since the last computed step sum to less than the threshold.

    The distance is between the modulated inputs of this step and of the one before, skipped or not: the first
    block's norm1, scaled and shifted. The absolute value of its polynomial is added to the sum A; A < threshold
    skips, otherwise the step is computed and A starts at 0 again.

    Step 0, steps below `num_warmup_steps`, and with `force_last_step` the last one are computed without a look at
    the distance. Each of them sets A to 0, so that the first step after the warm-up compares its own distance
    alone. (vLLM-Omni 0.30 has neither option: its warm-up is step 0.)
    """

    steps: int
    rel_l1_thresh: float
    coefficients: list[float]
    num_warmup_steps: int = 0
    force_last_step: bool = False
    sum: float = 0.0
    last_input: torch.Tensor | None = None
    distances: dict[int, float] = field(default_factory=dict)
    accumulated: dict[int, float] = field(default_factory=dict)

    def skips(self, step: int, modulated_input: torch.Tensor) -> bool:
        last_input, self.last_input = self.last_input, modulated_input
        is_last = step == self.steps - 1
        if last_input is None or step < self.num_warmup_steps or (self.force_last_step and is_last):
            self.sum = 0.0
            return False
        self.distances[step] = modulated_distance(last_input, modulated_input)
        self.sum += abs(polynomial(self.coefficients, self.distances[step]))
        self.accumulated[step] = self.sum
        if self.sum < self.rel_l1_thresh:
            return True
        self.sum = 0.0
        return False

    def report(self) -> dict:
        margins = (abs(value - self.rel_l1_thresh) for value in self.accumulated.values())
        return {
            "margin": min(margins, default=None),
            "distances": self.distances,
            "accumulated": self.accumulated,
        }


@dataclass
class MagCache:
    """Skips while the residual's magnitude, as the calibrated ratios foretell it, stays near the kept one's.

    From step `retention_steps` on every step multiplies the foretold magnitude by its ratio, counts one skipped
    step more and adds |1 - magnitude| to the error. It is skipped if neither the error exceeds `mag_threshold` nor
    the count `mag_max_skip_steps`; otherwise it is computed, and magnitude, count and error start anew.
    """

    steps: int
    mag_ratios: list[float]
    mag_threshold: float = 0.24
    mag_max_skip_steps: int = 5
    mag_retention_ratio: float = 0.1
    magnitude: float = 1.0
    error: float = 0.0
    skipped: int = 0
    errors: dict[int, float] = field(default_factory=dict)

    def __post_init__(self):
        self.ratios = [self.mag_ratios[index] for index in resampled_indices(len(self.mag_ratios), self.steps)]
        self.retention_steps = math.floor(self.mag_retention_ratio * self.steps + 0.5)

    def skips(self, step: int, _modulated_input: torch.Tensor) -> bool:
        if step < self.retention_steps:
            return False
        self.magnitude *= self.ratios[step]
        self.skipped += 1
        self.error += abs(1.0 - self.magnitude)
        self.errors[step] = self.error
        if step > 0 and self.error <= self.mag_threshold and self.skipped <= self.mag_max_skip_steps:
            return True
        self.magnitude, self.error, self.skipped = 1.0, 0.0, 0
        return False

    def report(self) -> dict:
        margins = (abs(error - self.mag_threshold) for error in self.errors.values())
        return {
            "margin": min(margins, default=None),
            "resampled_ratios": self.ratios,
            "retention_steps": self.retention_steps,
            "accumulated_errors": self.errors,
        }


@dataclass
class Watcher:
    """Skips nothing and keeps what calibration looks at."""

    inputs: list[torch.Tensor] = field(default_factory=list)

    def skips(self, _step: int, modulated_input: torch.Tensor) -> bool:
        self.inputs.append(modulated_input)
        return False


class BlockStack(torch.nn.Module):
    """All blocks of the DiT as one that may be skipped. Counts the steps from 0."""

    def __init__(self, blocks: torch.nn.ModuleList, cache: TeaCache | MagCache | Watcher):
        super().__init__()
        self.blocks = blocks
        self.norm1 = blocks[0].norm1  # its embedder also conditions the last layer
        self.cache = cache
        self.step = 0
        self.residual: torch.Tensor | None = None
        self.skipped_steps: list[int] = []
        self.residuals: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []

    def forward(self, hidden_states, timestep=None, class_labels=None, **kwargs):
        modulated_input = self.norm1(hidden_states, timestep, class_labels, hidden_dtype=hidden_states.dtype)[0]
        if self.cache.skips(self.step, modulated_input):
            self.skipped_steps.append(self.step)
            output = hidden_states + self.residual
        else:
            output = hidden_states
            for block in self.blocks:
                output = block(output, timestep=timestep, class_labels=class_labels, **kwargs)
            self.residual = output - hidden_states
        self.step += 1
        self.residuals.append(self.residual)
        self.outputs.append(output)
        return output


def modulated_distance(last: torch.Tensor, current: torch.Tensor) -> float:
    return ((current - last).abs().mean() / (last.abs().mean() + 1e-8)).item()


def polynomial(coefficients: list[float], value: float) -> float:
    result = 0.0
    for coefficient in coefficients:
        result = result * value + coefficient
    return result


def resampled_indices(ratios: int, steps: int) -> list[int]:
    """The nearest of `ratios` values for each of `steps` steps, first on first and last on last.

    As vLLM-Omni has it: in float32, halves to the even index, and for a single step the last value.
    """
    if steps == 1:
        return [ratios - 1]
    scale = np.float32((ratios - 1) / (steps - 1))
    return [int(np.rint(np.float32(step) * scale)) for step in range(steps)]


@dataclass(frozen=True)
class Study:
    name: str
    steps: int
    config: dict
    scheduler: str = "ddim"


def tea_cache_studies() -> list[Study]:
    def tea(name: str, threshold: float, coefficients: list[float], steps: int = 28, *, scheduler="ddim", **options):
        config = dict(rel_l1_thresh=threshold, coefficients=coefficients, **options)
        return Study(f"tea.{name}", steps, config, scheduler)

    return [
        tea("sum_R0.2", 0.2, SUM_OF_DISTANCES),
        tea("sum_R0.5", 0.5, SUM_OF_DISTANCES),
        tea("sum_R1000_all_but_the_first", 1000.0, SUM_OF_DISTANCES),
        tea("sum_R0.0001_none", 0.0001, SUM_OF_DISTANCES),
        tea("sum_50_steps_R0.25", 0.25, SUM_OF_DISTANCES, 50),
        tea("sum_8_steps_R0.5", 0.5, SUM_OF_DISTANCES, 8),
        tea("sum_dpm25_R0.3", 0.3, SUM_OF_DISTANCES, 25, scheduler="dpm"),
        tea("flux_R0.4", 0.4, FLUX_COEFFICIENTS),
        tea("flux_R0.8", 0.8, FLUX_COEFFICIENTS),
        tea("qwen_50_steps_R0.2", 0.2, QWEN_COEFFICIENTS, 50),
        tea("negative_values_R0.08", 0.08, [0.0, 0.0, 0.0, -1.0, 0.05]),
        tea("warmup_3", 0.3, SUM_OF_DISTANCES, num_warmup_steps=3),
        tea("warmup_beyond_the_end", 0.3, SUM_OF_DISTANCES, 8, num_warmup_steps=9),
        tea("force_last_step", 0.5, SUM_OF_DISTANCES, force_last_step=True),
        tea("warmup_5_force_last_step", 0.4, FLUX_COEFFICIENTS, 50, num_warmup_steps=5, force_last_step=True),
    ]


def mag_cache_studies() -> list[Study]:
    def mag(name: str, ratios: list[float], steps: int = 28, **options) -> Study:
        return Study(f"mag.{name}", steps, dict(mag_ratios=ratios, **options))

    return [
        mag("defaults_flux_ratios", FLUX_RATIOS),
        mag("flux_ratios_50_steps", FLUX_RATIOS, 50),
        mag("flux_ratios_8_steps", FLUX_RATIOS, 8, mag_threshold=0.1),
        mag("rising_ratios_R0.1", RISING_RATIOS, mag_threshold=0.1),
        mag("rising_ratios_max_skip_2", RISING_RATIOS, mag_max_skip_steps=2),
        mag("mixed_ratios_R0.06_retention_0.3", MIXED_RATIOS, mag_threshold=0.06, mag_retention_ratio=0.3),
        mag("mixed_ratios_no_retention", MIXED_RATIOS, 25, mag_threshold=0.15, mag_retention_ratio=0.01),
        mag("one_ratio", [1.0], mag_max_skip_steps=3),
    ]


def sample(study_scheduler: str, steps: int, cache) -> tuple[torch.Tensor, BlockStack]:
    """The final latents of a run on a fresh model, and the stack with all it recorded."""
    model = TinyDit()
    stack = BlockStack(model.transformer.transformer_blocks, cache)
    model.transformer.transformer_blocks = torch.nn.ModuleList([stack])
    latents = model.sample(study_scheduler, steps)
    assert stack.step == steps, "one forward per step"
    return latents, stack


def run(study: Study, cache: TeaCache | MagCache) -> tuple[dict, torch.Tensor]:
    latents, stack = sample(study.scheduler, study.steps, cache)
    golden = {
        "name": study.name,
        "scheduler": study.scheduler,
        "steps": study.steps,
        "config": study.config,
        "cached_steps": stack.skipped_steps,
        **cache.report(),
        **size_of(latents),
    }
    return golden, latents


def calibration(steps: int) -> dict:
    """What the settings of both caches are fitted to."""
    watcher = Watcher()
    _, stack = sample("ddim", steps, watcher)
    measures: dict[str, list[float | None]] = {
        "modulated_distances": [None],
        "residual_changes": [None],
        "output_changes": [None],
        "magnitude_ratios": [None],
        "magnitude_deviations": [None],
        "cosine_distances": [None],
    }
    for step in range(1, steps):
        last, current = stack.residuals[step - 1], stack.residuals[step]
        last_output, output = stack.outputs[step - 1], stack.outputs[step]
        # one ratio per token: [rows, tokens]
        ratios = torch.linalg.norm(current, dim=-1) / (torch.linalg.norm(last, dim=-1) + 1e-8)
        cosines = torch.nn.functional.cosine_similarity(current, last, dim=-1, eps=1e-8)
        values = (
            modulated_distance(watcher.inputs[step - 1], watcher.inputs[step]),
            ((current - last).abs().mean() / last.abs().mean()).item(),
            ((output - last_output).abs().sum() / (last_output.abs().sum() + 1e-6)).item(),
            ratios.mean().item(),
            ratios.std().item(),
            (1 - cosines).mean().item(),
        )
        for measure, value in zip(measures.values(), values, strict=True):
            measure.append(value)

    def fit(changes: str) -> list[float]:
        return np.polyfit(measures["modulated_distances"][1:], measures[changes][1:], 4).tolist()

    fitted = {changes: fit(changes) for changes in ("residual_changes", "output_changes")}
    return {"scheduler": "ddim", "steps": steps, **measures, "fitted": fitted}


def resampling_cases() -> list[dict]:
    return [
        {"from": ratios, "to": steps, "indices": resampled_indices(ratios, steps)}
        for ratios in (1, 10, 28, 50)
        for steps in (1, 2, 3, 7, 8, 10, 13, 19, 25, 28, 37, 39, 50, 77, 99)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/cache", help="the folder to write to")
    out = parser.parse_args().out
    torch.set_num_threads(1)  # one thread: the same sums in the same order on every machine
    diffusers.utils.logging.set_verbosity_error()

    tensors, goldens = {}, {"tea_cache": [], "mag_cache": []}
    listed = [("tea_cache", TeaCache, study) for study in tea_cache_studies()]
    listed += [("mag_cache", MagCache, study) for study in mag_cache_studies()]
    for backend, cache, study in listed:
        golden, tensors[f"latents.{study.name}"] = run(study, cache(study.steps, **study.config))
        goldens[backend].append(golden)
        print(study.name, golden["cached_steps"], golden["margin"], flush=True)
    for kind, steps in sorted({(study.scheduler, study.steps) for _, _, study in listed}):
        latents, stack = sample(kind, steps, Watcher())
        assert torch.equal(latents, TinyDit().sample(kind, steps)), "the stack changes what it watches"
        assert not stack.skipped_steps
        tensors[f"latents.uncached.{kind}.{steps}"] = latents

    goldens |= {"resampled": resampling_cases(), "uncached": calibration(28)}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "tea_cache.safetensors")
    (out / "tea_cache.json").write_text(json.dumps(goldens) + "\n")
    runs = goldens["tea_cache"] + goldens["mag_cache"]
    close = [golden["name"] for golden in runs if golden["margin"] is not None and golden["margin"] < SAFE_MARGIN]
    assert not close, f"decided too closely: {close}"


if __name__ == "__main__":
    main()
