"""Golden runs of cache-dit on a tiny random DiT: every cache option once, float32, CPU.

    python tests/reference/tiny_dit_goldens.py [--out tests/fixtures/tiny-dit-goldens]

Writes

* `transformer/`: the model in diffusers layout (8 layers, 4 heads x 16, 16 tokens, class-conditional, learned
  sigma, random weights),
* `golden.json`: for every run its whole cache config, calibrator, tag, cached steps, residual diffs and
  `margin`, the smallest distance of a diff from the threshold (null where nothing was compared),
* `golden_tensors.safetensors`: `init_noise`, `latents.NAME` and `latents.uncached.SCHEDULER.STEPS`, all
  `[2, 4, 8, 8]`.

Every run draws two pictures (classes 1 and 7) from seed 42 with guidance scale 4. Runs named `sepcfg...`
evaluate the conditional and the unconditional batch in two forwards per step, as the Qwen-Image and Wan
pipelines do; the others put both into one batch.

The weights are random (seed 0), but the fast timestep frequencies are silenced and the scheduler works in
v-prediction, so trajectories are smooth and bounded and the residual diffs form the usual saw-tooth. The
script checks cache-dit as it goes: a second request repeats the first bit for bit, and switching the cache off
restores the uncached bits.
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
from cache_dit import (
    DBCacheConfig,
    DMDCalibratorConfig,
    FoCaCalibratorConfig,
    TaylorSeerCalibratorConfig,
    steps_mask,
)
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, DPMSolverMultistepScheduler
from final_latents import record_final_latents
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
CLASS_LABELS, NULL_CLASS = [1, 7], 1000
GUIDANCE_SCALE, SEED = 4.0, 42
LATENTS_SHAPE = (len(CLASS_LABELS), 4, 8, 8)


@dataclass(frozen=True)
class Study:
    """One cached run: which scheduler, how many steps, which cache."""

    name: str
    scheduler: str
    steps: int
    config: DBCacheConfig
    calibrator: object | None = None


def db_cache(**options) -> DBCacheConfig:
    """A DBCache config; what is not named is Fn 1, Bn 0, warm-up 4, threshold 0.12."""
    defaults = dict(Fn_compute_blocks=1, Bn_compute_blocks=0, max_warmup_steps=4, residual_diff_threshold=0.12)
    return DBCacheConfig(**(defaults | options))


def taylor(order: int, **options) -> TaylorSeerCalibratorConfig:
    return TaylorSeerCalibratorConfig(taylorseer_order=order, **options)


def scheduler(kind: str):
    options = dict(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
    )
    if kind == "ddim":
        return DDIMScheduler(clip_sample=False, **options)
    return DPMSolverMultistepScheduler(**options)


LOOSE = dict(residual_diff_threshold=0.24, max_continuous_cached_steps=3)
"""vLLM-Omni's threshold and limit."""


def studies() -> list[Study]:
    """The runs with conditional and unconditional rows in one batch."""

    def ddim28(name: str, calibrator=None, **options) -> Study:
        return Study(name, "ddim", 28, db_cache(**options), calibrator)

    def masked(policy: str, steps: int = 28, **options) -> dict:
        return dict(steps_computation_mask=steps_mask(total_steps=steps, mask_policy=policy), **options)

    return [
        # thresholds
        ddim28("F1B0_R0.12"),
        ddim28("F1B0_R0.03", residual_diff_threshold=0.03),
        ddim28("F1B0_R0.06", residual_diff_threshold=0.06),
        ddim28("F1B0_R0.08", residual_diff_threshold=0.08),
        ddim28("F1B0_R0.2", residual_diff_threshold=0.2),
        ddim28("F1B0_R1.0", residual_diff_threshold=1.0),
        # first and last blocks
        ddim28("F4B2", Fn_compute_blocks=4, Bn_compute_blocks=2),
        ddim28("F8B0_all_blocks_are_Fn", Fn_compute_blocks=8),
        ddim28("F6B4_overlap", Fn_compute_blocks=6, Bn_compute_blocks=4),
        # calibrators
        ddim28("Taylor1", taylor(1)),
        ddim28("Taylor2", taylor(2)),
        ddim28("Taylor1_R0.24_MC3", taylor(1), **LOOSE),
        ddim28("Taylor2_R0.24_MC3", taylor(2), **LOOSE),
        ddim28("Taylor1_hidden_states", taylor(1, calibrator_cache_type="hidden_states")),
        ddim28("Taylor1_F4B2", taylor(1), Fn_compute_blocks=4, Bn_compute_blocks=2),
        ddim28("FoCa", FoCaCalibratorConfig()),
        ddim28("DMD", DMDCalibratorConfig()),
        # step masks
        ddim28("SCM_medium_dynamic", **masked("medium", steps_computation_policy="dynamic")),
        ddim28("SCM_medium_static", **masked("medium", steps_computation_policy="static")),
        ddim28("SCM_ultra_static_Taylor1", taylor(1), **masked("ultra", steps_computation_policy="static")),
        ddim28(
            "SCM_fast_dynamic_R0.3_Taylor1",
            taylor(1),
            residual_diff_threshold=0.3,
            **masked("fast", steps_computation_policy="dynamic"),
        ),
        # limits
        ddim28("MC3_R0.24", **LOOSE),
        ddim28("MC1_R0.24", residual_diff_threshold=0.24, max_continuous_cached_steps=1),
        ddim28("W8_I2", max_warmup_steps=8, warmup_interval=2, **LOOSE),
        ddim28("max_cached_5", max_cached_steps=5),
        ddim28("max_acc_1.0", max_accumulated_residual_diff_threshold=1.0),
        # forced refreshes
        ddim28("refresh_hint_14_once", force_refresh_step_hint=14),
        ddim28("refresh_hint_8_repeat", force_refresh_step_hint=8, force_refresh_step_policy="repeat"),
        # defaults of the servers, other schedulers and step counts
        ddim28("vllm_omni_default", **LOOSE),
        Study("cache_dit_default_F8", "ddim", 28, DBCacheConfig()),
        Study("dpm25_F1B0_R0.12", "dpm", 25, db_cache()),
        Study("dpm25_MC3_R0.24_Taylor1", "dpm", 25, db_cache(**LOOSE), taylor(1)),
        Study("ddim30_SCM_slow_dynamic", "ddim", 30, db_cache(residual_diff_threshold=0.24, **masked("slow", 30))),
        Study("ddim8_few_step_vllm", "ddim", 8, db_cache(**LOOSE)),
    ]


def separate_cfg_studies() -> list[Study]:
    """The runs with two forwards per step."""

    def separate(name: str, calibrator=None, **options) -> Study:
        config = db_cache(enable_separate_cfg=True, num_inference_steps=28, **options)
        return Study(name, "ddim", 28, config, calibrator)

    return [
        separate("sepcfg"),
        separate("sepcfg_shared_diff", cfg_diff_compute_separate=False),
        separate("sepcfg_MC3_R0.24_Taylor1", taylor(1), **LOOSE),
        separate("sepcfg_shared_diff_cfg_first", cfg_diff_compute_separate=False, cfg_compute_first=True),
    ]


class TinyDit:
    """The model, and the two ways to sample from it."""

    def __init__(self):
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=16,
            in_channels=4,
            out_channels=8,
            num_layers=8,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=NULL_CLASS,
            norm_eps=1e-6,
        ).eval()
        vae = AutoencoderKL(  # only there so that the pipeline can finish
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=16,
        ).eval()
        calm(transformer)
        self.pipeline = DiTPipeline(transformer=transformer, vae=vae, scheduler=scheduler("ddim"))
        self.pipeline.set_progress_bar_config(disable=True)
        self.transformer = transformer
        self.final_latents = record_final_latents(self.pipeline)

    def sample(self, kind: str, steps: int) -> torch.Tensor:
        """DiTPipeline's way: conditional and unconditional rows in one batch."""
        self.pipeline.scheduler = scheduler(kind)
        self.pipeline(
            class_labels=CLASS_LABELS,
            guidance_scale=GUIDANCE_SCALE,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(SEED),
            output_type="pt",
        )
        return self.final_latents.pop()

    @torch.no_grad()
    def sample_separately(self, steps: int) -> torch.Tensor:
        """Two forwards per step, the conditional one first."""
        ddim = scheduler("ddim")
        ddim.set_timesteps(steps)
        latents = initial_noise()
        labels, null_labels = torch.tensor(CLASS_LABELS), torch.full((len(CLASS_LABELS),), NULL_CLASS)
        for timestep in ddim.timesteps:
            timesteps = timestep.expand(len(latents))
            conditional = self.transformer(latents, timestep=timesteps, class_labels=labels).sample[:, :4]
            unconditional = self.transformer(latents, timestep=timesteps, class_labels=null_labels).sample[:, :4]
            guided = unconditional + GUIDANCE_SCALE * (conditional - unconditional)
            latents = ddim.step(guided, timestep, latents).prev_sample
        return latents


@torch.no_grad()
def calm(transformer: DiTTransformer2DModel) -> None:
    """Give the random net a smooth dependence on time that still shows in its output."""
    for block in transformer.transformer_blocks:
        weight = block.norm1.emb.timestep_embedder.linear_1.weight
        frequencies = weight.shape[1] // 2
        weight[:, : frequencies // 2] = 0  # the 64 fastest sines and cosines
        weight[:, frequencies : frequencies + frequencies // 2] = 0
        block.norm1.linear.weight.mul_(2.0)  # stronger modulation
    transformer.proj_out_2.weight.mul_(4.0)


def initial_noise() -> torch.Tensor:
    return torch.randn(LATENTS_SHAPE, generator=torch.Generator().manual_seed(SEED))


def run_cached(model: TinyDit, study: Study) -> tuple[dict, torch.Tensor]:
    """One study through the pipeline: its entry in `golden.json` and its final latents."""
    cache_dit.enable_cache(model.pipeline, cache_config=study.config, calibrator_config=study.calibrator)
    latents = model.sample(study.scheduler, study.steps)
    stats = cache_dit.summary(model.pipeline, logging=False)[-1]
    repeated = model.sample(study.scheduler, study.steps)
    repeated_stats = cache_dit.summary(model.pipeline, logging=False)[-1]
    assert torch.equal(latents, repeated) and stats.cached_steps == repeated_stats.cached_steps, study.name
    tag = cache_dit.strify(stats)
    cache_dit.disable_cache(model.pipeline)
    golden = {
        "name": study.name,
        "scheduler": study.scheduler,
        "steps": study.steps,
        "tag": tag,
        **options_and_margin(study, stats),
        "cached_steps": stats.cached_steps,
        "accumulated_cached_steps": stats.accumulated_cached_steps,
        "residual_diffs": dict(stats.residual_diffs),
        **size_of(latents),
    }
    return golden, latents


def run_cached_separately(model: TinyDit, study: Study) -> tuple[dict, torch.Tensor]:
    """One study with two forwards per step."""
    cache_dit.enable_cache(model.transformer, cache_config=study.config, calibrator_config=study.calibrator)
    latents = model.sample_separately(study.steps)
    stats = cache_dit.summary(model.transformer, logging=False)[-1]
    cache_dit.disable_cache(model.transformer)
    golden = {
        "name": study.name,
        "scheduler": study.scheduler,
        "steps": study.steps,
        **options_and_margin(study, stats),
        "separate_cfg": True,
        "cached_steps": stats.cached_steps,
        "cfg_cached_steps": stats.cfg_cached_steps,
        "residual_diffs": dict(stats.residual_diffs),
        "cfg_residual_diffs": dict(stats.cfg_residual_diffs),
        **size_of(latents),
    }
    return golden, latents


def options_and_margin(study: Study, stats) -> dict:
    """The effective options, and how close the closest decision was."""
    threshold = study.config.residual_diff_threshold
    diffs = [*stats.residual_diffs.values(), *stats.cfg_residual_diffs.values()]
    options = study.config.as_dict()
    return {
        "threshold": threshold,
        "margin": min((abs(diff - threshold) for diff in diffs if diff >= 0), default=None),
        "config": options | {"cache_type": str(options["cache_type"])},
        "calibrator": study.calibrator.as_dict() if study.calibrator else None,
    }


def size_of(latents: torch.Tensor) -> dict:
    """Two numbers to compare by eye."""
    return {"latents_sum": latents.double().sum().item(), "latents_norm": latents.double().norm().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "tests/fixtures/tiny-dit-goldens", help="where the goldens go"
    )
    out = parser.parse_args().out
    torch.set_num_threads(1)  # one thread: the same sums in the same order on every machine
    diffusers.utils.logging.set_verbosity_error()

    model = TinyDit()
    model.transformer.save_pretrained(out / "transformer")
    tensors, goldens = {"init_noise": initial_noise()}, []
    uncached = {run: model.sample(*run) for run in (("ddim", 28), ("dpm", 25), ("ddim", 30), ("ddim", 8))}
    uncached_separately = model.sample_separately(28)
    for runner, listed in ((run_cached, studies()), (run_cached_separately, separate_cfg_studies())):
        for study in listed:
            golden, tensors[f"latents.{study.name}"] = runner(model, study)
            goldens.append(golden)
            print(study.name, golden["cached_steps"], golden["margin"], flush=True)
    assert torch.equal(model.sample("ddim", 28), uncached["ddim", 28]), "disable_cache left something behind"
    assert torch.equal(model.sample_separately(28), uncached_separately), "disable_cache left something behind"

    for (kind, steps), latents in uncached.items():
        tensors[f"latents.uncached.{kind}.{steps}"] = latents
    tensors["latents.uncached.sepcfg"] = uncached_separately
    save_file(tensors, out / "golden_tensors.safetensors")
    (out / "golden.json").write_text(json.dumps(goldens, indent=1))


if __name__ == "__main__":
    main()
