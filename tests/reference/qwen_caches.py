"""Caches of Qwen-Image's two forwards per step, on the model of `qwen_goldens.py`, and TeaCache on both kinds of runs.

    python tests/reference/qwen_caches.py [--out tests/fixtures/cache]

cache-dit knows that the class makes two forwards, so nothing has to be set for that; TeaCache goes by the rules of
`tea_cache.py`, with the coefficients that vLLM-Omni has for Qwen-Image.

Writes `qwen_caches.json` and `qwen_caches.safetensors` as `flux_caches.py` does, of runs of `fixtures/qwen-image`.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import cache_dit
import torch
from cache_dit import steps_mask
from diffusers import QwenImagePipeline
from flux_caches import BRANCHES, Study, context, margin
from qwen_goldens import models
from safetensors.torch import save_file
from tea_cache import SAFE_MARGIN, TeaCache
from text_to_image import ROOT, STEPS, Run, quiet, recorded_steps
from tiny_dit_goldens import LOOSE, db_cache, size_of, taylor

MODEL = "qwen-image"
LIST = "transformer_blocks"
COEFFICIENTS = [-450.0, 280.0, -45.0, 3.2, -0.02]


def studies() -> list[Study]:
    basic = dict(Fn_compute_blocks=1, Bn_compute_blocks=0, max_warmup_steps=4, max_continuous_cached_steps=-1)
    fast = dict(steps_computation_mask=steps_mask(total_steps=STEPS, mask_policy="medium"))

    def true_cfg(name: str, threshold: float = 0.12, order: int | None = None, **options) -> Study:
        config = basic | dict(residual_diff_threshold=threshold) | options
        return Study(f"true_cfg.{name}", "short_true_cfg", "cache_dit", config, order)

    def tea(name: str, run: str, threshold: float, **options) -> Study:
        return Study(f"tea.{name}", run, "tea_cache", dict(rel_l1_thresh=threshold, **options))

    return [
        true_cfg("F1B0_R0.12"),
        true_cfg("F1B0_R0.08", 0.08),
        true_cfg("F2B1_R0.15", 0.15, Fn_compute_blocks=2, Bn_compute_blocks=1),
        true_cfg("F1B0_R0.24_MC3_Taylor1", order=1, **LOOSE),
        true_cfg("F1B2_R0.2_Taylor2", 0.2, 2, Bn_compute_blocks=2),
        true_cfg("shared_diff", 0.15, cfg_diff_compute_separate=False),
        true_cfg("SCM_medium_W2", 0.2, max_warmup_steps=2, steps_computation_policy="dynamic", **fast),
        tea("R0.1", "short", 0.1),
        tea("R0.15_true_cfg", "short_true_cfg", 0.15),
    ]


class BlockStack(torch.nn.Module):
    """The blocks as one that may be skipped; one cache per branch, which take turns."""

    def __init__(self, transformer, caches: list):
        super().__init__()
        self.blocks = transformer.transformer_blocks
        self.caches = caches
        self.forwards = 0
        self.residuals: list = [None] * len(caches)
        self.skipped_steps: list[list[int]] = [[] for _ in caches]

    def forward(self, hidden_states, encoder_hidden_states, temb, **kwargs):
        step, branch = divmod(self.forwards, len(self.caches))
        self.forwards += 1
        first = self.blocks[0]
        modulated_input = first._modulate(first.img_norm1(hidden_states), first.img_mod(temb).chunk(2, dim=-1)[0])[0]
        text, image = encoder_hidden_states, hidden_states
        if self.caches[branch].skips(step, modulated_input):
            self.skipped_steps[branch].append(step)
            text_residual, image_residual = self.residuals[branch]
            return text + text_residual, image + image_residual
        for block in self.blocks:
            text, image = block(hidden_states=image, encoder_hidden_states=text, temb=temb, **kwargs)
        self.residuals[branch] = (text - encoder_hidden_states, image - hidden_states)
        return text, image


def final_latents(pipeline, run: Run) -> torch.Tensor:
    with recorded_steps(pipeline) as steps:
        pipeline(**run.arguments(), output_type="latent")
    return steps.latents[-1]


def with_cache_dit(pipeline, study: Study, run: Run) -> tuple[list[dict], torch.Tensor]:
    calibrator = None if study.order is None else taylor(study.order)
    cache_dit.enable_cache(pipeline, cache_config=db_cache(**study.config), calibrator_config=calibrator)
    latents = final_latents(pipeline, run)
    stats = cache_dit.summary(pipeline, logging=False)[-1]
    cache_dit.disable_cache(pipeline)
    cond = context(LIST, "cond", stats.cached_steps, stats.residual_diffs)
    return [cond, context(LIST, "uncond", stats.cfg_cached_steps, stats.cfg_residual_diffs)], latents


def with_stack(pipeline, study: Study, run: Run) -> tuple[list[dict], torch.Tensor]:
    branches = BRANCHES if "true_cfg_scale" in run.options else ("all",)
    caches = [TeaCache(run.steps, coefficients=COEFFICIENTS, **study.config) for _ in branches]
    transformer = pipeline.transformer
    blocks = transformer.transformer_blocks
    stack = BlockStack(transformer, caches)
    transformer.transformer_blocks = torch.nn.ModuleList([stack])
    latents = final_latents(pipeline, run)
    transformer.transformer_blocks = blocks
    assert stack.forwards == run.steps * len(branches)
    contexts = [
        context(LIST, branch, skipped, cache.report()["accumulated"])
        for branch, skipped, cache in zip(branches, stack.skipped_steps, caches, strict=True)
    ]
    return contexts, latents


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/cache", help="the folder to write to")
    out = parser.parse_args().out
    quiet()
    model = next(model for model in models() if model.name == MODEL)
    pipeline = QwenImagePipeline.from_pretrained(ROOT / "tests/fixtures" / MODEL / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    goldens, tensors = [], {}
    for study in studies():
        run = next(run for run in model.runs if run.name == study.run)
        contexts, latents = (with_cache_dit if study.backend == "cache_dit" else with_stack)(pipeline, study, run)
        request_config = study.request_config
        if "steps_computation_policy" in request_config:
            request_config = request_config | {"scm_steps_policy": request_config["steps_computation_policy"]}
            del request_config["steps_computation_policy"]
        golden = {
            "name": study.name,
            "run": study.run,
            "cache_backend": study.backend,
            "cache_config": request_config,
            "margin": margin(study, contexts),
            "contexts": contexts,
            **size_of(latents),
        }
        tensors[study.name] = latents.contiguous()
        goldens.append(golden)
        print(study.name, golden["margin"], [one["cached_steps"] for one in contexts], flush=True)
        assert golden["margin"] is None or golden["margin"] > SAFE_MARGIN, "decided too closely"
    save_file(tensors, out / "qwen_caches.safetensors")
    (out / "qwen_caches.json").write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
