"""Golden pictures of the embedded model from diffusers and cache-dit: float32, CPU.

    python tests/reference/emoji_goldens.py [--model models/emoji-dit] [--out tests/fixtures/emoji-dit]

Writes

* `golden.json`: for every case its name, the request as it would be POSTed, and for cached runs the cached
  steps, the residual diffs and `margin`, the smallest distance of a diff from the threshold,
* `latents.safetensors`: under the case's name the final latents `[1, 4, 16, 16]`, before the VAE's scaling is
  undone,
* `NAME.png`: the picture.

A cache key that a request leaves out means vLLM-Omni's default (`SERVER_DEFAULTS`), not cache-dit's.
"""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import cache_dit
import diffusers
import torch
from cache_dit import DBCacheConfig, TaylorSeerCalibratorConfig, steps_mask
from diffusers import DDIMScheduler, DiTPipeline, DPMSolverMultistepScheduler
from final_latents import record_final_latents
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]

SERVER_DEFAULTS = dict(
    Fn_compute_blocks=1,
    Bn_compute_blocks=0,
    max_warmup_steps=4,
    max_cached_steps=-1,
    residual_diff_threshold=0.24,
    max_continuous_cached_steps=3,
)
DPM, DDIM = DPMSolverMultistepScheduler, DDIMScheduler
PROMPTS = {
    "red apple": 1,
    "fox face": 7,
    "rocket": 42,
    "sunflower": 123456789,
    "hamburger": 4294967301,  # over 32 bits: the noise of seed 5
    "penguin": 0,
}
"""Prompt and seed of the uncached cases."""

CACHED_PROMPTS = ("red apple", "fox face", "sunflower")
SEEDS_TO_TRY = 50
SAFE_MARGIN = 1e-3
"""A cached case takes the first seed whose diffs all stay this far from the threshold.

Sums in another order move a diff by about 1e-6, so no implementation that is right can decide otherwise.
"""

CACHE_STUDIES = {
    "seed_study": (
        DPM,
        25,
        dict(Fn_compute_blocks=4, max_warmup_steps=4, residual_diff_threshold=0.12, max_continuous_cached_steps=-1),
    ),
    "seed_study_taylor": (
        DPM,
        25,
        dict(
            Fn_compute_blocks=4,
            max_warmup_steps=4,
            residual_diff_threshold=0.12,
            max_continuous_cached_steps=3,
            enable_taylorseer=True,
            taylorseer_order=1,
        ),
    ),
    "server_default": (DPM, 25, {}),
    "f2b2": (DPM, 25, dict(Fn_compute_blocks=2, Bn_compute_blocks=2, residual_diff_threshold=0.12)),
    "ddim_quality": (
        DDIM,
        50,
        dict(Fn_compute_blocks=1, max_warmup_steps=8, residual_diff_threshold=0.08, max_continuous_cached_steps=-1),
    ),
    "ddim_taylor2": (DDIM, 50, dict(residual_diff_threshold=0.24, enable_taylorseer=True, taylorseer_order=2)),
    "scm_medium": (DPM, 28, dict(scm_steps_mask_policy="medium", scm_steps_policy="dynamic")),
    "scm_ultra_static_taylor": (
        DPM,
        28,
        dict(scm_steps_mask_policy="ultra", scm_steps_policy="static", enable_taylorseer=True),
    ),
    "limits": (DDIM, 30, dict(max_cached_steps=6, max_continuous_cached_steps=1)),
}
"""Scheduler, number of steps and `cache_config` as a request sends it; guidance scale 4 throughout."""


@dataclass(frozen=True)
class Case:
    """One picture to be made."""

    name: str
    scheduler: type
    prompt: str
    seed: int
    steps: int
    guidance_scale: float
    cache_config: dict | None = None

    def request(self) -> dict:
        """The body of the POST that asks for it."""
        request = {
            "prompt": self.prompt,
            "seed": self.seed,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "scheduler": self.scheduler.__name__,
            "cache_backend": "none" if self.cache_config is None else "cache_dit",
        }
        if self.cache_config is not None:
            request["cache_config"] = self.cache_config
        return request


@dataclass(frozen=True)
class Outcome:
    """A picture, its latents and its entry in `golden.json`."""

    golden: dict
    latents: torch.Tensor
    image: Image.Image


def load_pipeline(folder: Path, scheduler: type) -> DiTPipeline:
    """The model in float32 with its own scheduler config, of this class."""
    pipeline = DiTPipeline.from_pretrained(folder, dtype=torch.float32)
    if scheduler is not type(pipeline.scheduler):
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def enable_cache(pipeline: DiTPipeline, request_config: dict, steps: int) -> None:
    """Switch cache-dit on as vLLM-Omni would for a request with this `cache_config`."""
    config = SERVER_DEFAULTS | request_config
    calibrator = {}
    order = config.pop("taylorseer_order", 1)
    if config.pop("enable_taylorseer", False):
        calibrator = {"calibrator_config": TaylorSeerCalibratorConfig(taylorseer_order=order)}
    mask_policy = config.pop("scm_steps_mask_policy", None)
    steps_policy = config.pop("scm_steps_policy", "dynamic")
    if mask_policy is not None:
        config["steps_computation_mask"] = steps_mask(total_steps=steps, mask_policy=mask_policy)
        config["steps_computation_policy"] = steps_policy
    cache_dit.enable_cache(pipeline, cache_config=DBCacheConfig(**config), **calibrator)


def cache_decisions(pipeline: DiTPipeline, request_config: dict) -> dict:
    """What cache-dit reports of the run just made."""
    summary = cache_dit.summary(pipeline)
    stats = summary[0] if isinstance(summary, list) else summary
    diffs = {step: float(diff) for step, diff in stats.residual_diffs.items()}
    threshold = (SERVER_DEFAULTS | request_config)["residual_diff_threshold"]
    distances = [abs(diff - threshold) for diff in diffs.values() if diff >= 0]  # below 0: nothing was compared
    return {
        "cached_steps": list(stats.cached_steps),
        "residual_diffs": diffs,
        "margin": min(distances, default=None),
    }


def run(folder: Path, case: Case) -> Outcome:
    """Make one picture on a fresh pipeline: cache-dit leaves traces on the one it was enabled on."""
    pipeline = load_pipeline(folder, case.scheduler)
    final_latents = record_final_latents(pipeline)
    if case.cache_config is not None:
        enable_cache(pipeline, case.cache_config, case.steps)
    image = pipeline(
        class_labels=pipeline.get_label_ids([case.prompt]),
        num_inference_steps=case.steps,
        guidance_scale=case.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(case.seed),
    ).images[0]
    golden = {"name": case.name, "request": case.request()}
    if case.cache_config is not None:
        golden |= cache_decisions(pipeline, case.cache_config)
        cache_dit.disable_cache(pipeline)
    return Outcome(golden, final_latents[0], image)


def uncached_cases() -> list[Case]:
    return [
        Case(f"{short}{steps}_g{scale:g}_{prompt.replace(' ', '_')}", scheduler, prompt, seed, steps, scale)
        for short, scheduler, steps in (("dpm", DPM, 25), ("ddim", DDIM, 50))
        for scale in (1.0, 4.0)
        for prompt, seed in PROMPTS.items()
    ]


def run_with_safe_margin(folder: Path, study: str, prompt: str) -> Outcome:
    """The first seed, from the prompt's own upwards, whose decisions do not hang on rounding."""
    scheduler, steps, config = CACHE_STUDIES[study]
    name = f"cached_{study}_{prompt.replace(' ', '_')}"
    for seed in range(PROMPTS[prompt], PROMPTS[prompt] + SEEDS_TO_TRY):
        outcome = run(folder, Case(name, scheduler, prompt, seed, steps, 4.0, config))
        margin = outcome.golden["margin"]
        if margin is None or margin >= SAFE_MARGIN:
            return outcome
    raise RuntimeError(f"{name}: no seed of {SEEDS_TO_TRY} keeps {SAFE_MARGIN} from the threshold")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/emoji-dit", help="the model folder")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/emoji-dit", help="where the goldens go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one thread: the same sums in the same order on every machine
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)

    goldens, latents = [], {}

    def keep(outcome: Outcome) -> None:
        name = outcome.golden["name"]
        outcome.image.save(arguments.out / f"{name}.png")
        latents[name] = outcome.latents
        goldens.append(outcome.golden)
        print(name, outcome.golden["request"]["seed"], outcome.golden.get("cached_steps"), flush=True)

    for case in uncached_cases():
        keep(run(arguments.model, case))
    for study in CACHE_STUDIES:
        for prompt in CACHED_PROMPTS:
            keep(run_with_safe_margin(arguments.model, study, prompt))
    save_file(latents, arguments.out / "latents.safetensors")
    (arguments.out / "golden.json").write_text(json.dumps(goldens, indent=1))


if __name__ == "__main__":
    main()
