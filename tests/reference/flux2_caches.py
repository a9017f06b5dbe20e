"""Caches of FLUX.2's two block lists and of its base models' two forwards per step, on `flux2_goldens.py`'s models.

    python tests/reference/flux2_caches.py [--out tests/fixtures/cache]

cache-dit decides about each list by itself, and sees text and picture as one stream in the second. TeaCache and
MagCache go by the rules of `tea_cache.py`, with the numbers that vLLM-Omni has for klein and for FLUX.2; they skip both
lists together.

Writes `flux2_caches.json` and `.safetensors` as `flux_caches.py` does, of runs of `fixtures/flux2-klein`, and
`flux2_base_caches.json` and `.safetensors`, of guided runs of `fixtures/flux2-klein-base`.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import cache_dit
import torch
from cache_dit import steps_mask
from diffusers import Flux2KleinPipeline
from diffusers.models.transformers.transformer_flux2 import Flux2Modulation
from flux2_goldens import TinyKlein, models
from flux_caches import BRANCHES, LISTS, Study, context, margin
from safetensors.torch import save_file
from tea_cache import FLUX_COEFFICIENTS, SAFE_MARGIN, MagCache, TeaCache
from text_to_image import ROOT, STEPS, Run, quiet, recorded_steps
from tiny_dit_goldens import LOOSE, db_cache, size_of, taylor

FILES = {"flux2-klein": "flux2_caches", "flux2-klein-base": "flux2_base_caches"}
RATIOS = [
    *(1.0, 0.96528, 1.11559, 1.0565, 1.00425, 1.0805, 0.98616, 1.09289, 1.03196, 1.06679, 1.03941, 1.05375),
    *(1.03128, 1.05349, 1.01983, 1.05535, 1.0662, 1.05748, 1.00318, 1.05222, 1.04556, 1.0506, 1.05058, 1.05219),
    *(1.02025, 1.05052, 1.04143, 1.0498),
]


def studies(model: str) -> list[Study]:
    basic = dict(Fn_compute_blocks=1, Bn_compute_blocks=0, max_warmup_steps=4, max_continuous_cached_steps=-1)
    medium = dict(steps_computation_mask=steps_mask(total_steps=STEPS, mask_policy="medium"))
    is_guided = model.endswith("base")
    run = "short_guided" if is_guided else "short"

    def cached(name: str, threshold: float = 0.12, order: int | None = None, **options) -> Study:
        config = basic | dict(residual_diff_threshold=threshold) | options
        if is_guided:
            config["enable_separate_cfg"] = True
        return Study(name, run, "cache_dit", config, order)

    def tea(threshold: float, **options) -> Study:
        return Study(f"tea.R{threshold}", run, "tea_cache", dict(rel_l1_thresh=threshold, **options))

    common = [
        cached("F1B0_R0.11", 0.11),
        cached("F1B0_R0.08", 0.08),
        cached("F2B0_R0.15_Taylor1", 0.15, 1, Fn_compute_blocks=2),
        cached("F1B2_R0.2_Taylor2", 0.2, 2, Bn_compute_blocks=2),
        cached("F1B1_R0.24_MC3", Bn_compute_blocks=1, **LOOSE),
        cached("F6B0_R0.24", 0.24, Fn_compute_blocks=6),
        cached("SCM_medium_W2", 0.2, max_warmup_steps=2, steps_computation_policy="dynamic", **medium),
        tea(0.25),
        tea(0.4),
        Study("mag.defaults", run, "mag_cache", {}),
    ]
    if is_guided:
        common.append(cached("shared_diff", 0.14, cfg_diff_compute_separate=False))
    return common


class Stack:
    """All blocks as one that may be skipped, in place of the two lists; one cache per branch, which take turns."""

    def __init__(self, transformer, caches: list):
        self.blocks, self.single_blocks = (getattr(transformer, name) for name in LISTS)
        self.caches = caches
        self.forwards = 0
        self.residuals: list = [None] * len(caches)
        self.skipped_steps: list[list[int]] = [[] for _ in caches]
        self.entry = None

    def begin(self, hidden_states, encoder_hidden_states, temb_mod_img, **kwargs):
        """In the place of the first list."""
        step, self.branch = divmod(self.forwards, len(self.caches))
        self.forwards += 1
        shift, scale, _ = Flux2Modulation.split(temb_mod_img, 2)[0]
        modulated_input = (1 + scale) * self.blocks[0].norm1(hidden_states) + shift
        self.is_skipped = self.caches[self.branch].skips(step, modulated_input)
        text, image = encoder_hidden_states, hidden_states
        if self.is_skipped:
            self.skipped_steps[self.branch].append(step)
            return text, image
        self.entry = torch.cat([text, image], dim=1)
        for block in self.blocks:
            text, image = block(hidden_states=image, encoder_hidden_states=text, temb_mod_img=temb_mod_img, **kwargs)
        return text, image

    def end(self, hidden_states, **kwargs):
        """In the place of the second list."""
        if self.is_skipped:
            return hidden_states + self.residuals[self.branch]
        for block in self.single_blocks:
            hidden_states = block(hidden_states=hidden_states, **kwargs)
        self.residuals[self.branch] = hidden_states - self.entry
        return hidden_states


class Called(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, **kwargs):
        return self.function(**kwargs)


def final_latents(pipeline, run: Run, options: dict) -> torch.Tensor:
    with recorded_steps(pipeline) as steps:
        pipeline(**run.arguments(), **options, output_type="latent")
    return steps.latents[-1]


def with_cache_dit(pipeline, study: Study, run: Run, model: TinyKlein) -> tuple[list[dict], torch.Tensor]:
    calibrator = None if study.order is None else taylor(study.order)
    cache_dit.enable_cache(pipeline, cache_config=db_cache(**study.config), calibrator_config=calibrator)
    latents = final_latents(pipeline, run, model.options)
    contexts = []
    for name in LISTS:
        blocks = getattr(pipeline.transformer, name)
        if study.config.get("enable_separate_cfg"):
            cond, uncond = BRANCHES
            contexts.append(context(name, cond, blocks._cached_steps, blocks._residual_diffs))
            contexts.append(context(name, uncond, blocks._cfg_cached_steps, blocks._cfg_residual_diffs))
        else:
            contexts.append(context(name, "all", blocks._cached_steps, blocks._residual_diffs))
    cache_dit.disable_cache(pipeline)
    return contexts, latents


def request_keys(study: Study) -> dict:
    """The names of a request, where they are not cache-dit's."""
    keys = dict(study.request_config)
    if "steps_computation_policy" in keys:
        keys["scm_steps_policy"] = keys.pop("steps_computation_policy")
    return keys


def with_stack(pipeline, study: Study, run: Run, model: TinyKlein) -> tuple[list[dict], torch.Tensor]:
    kind, published = {
        "tea_cache": (TeaCache, {"coefficients": FLUX_COEFFICIENTS}),
        "mag_cache": (MagCache, {"mag_ratios": RATIOS}),
    }[study.backend]
    branches = ("all",) if model.is_distilled else BRANCHES
    caches = [kind(run.steps, **published, **study.config) for _ in branches]
    transformer = pipeline.transformer
    stack = Stack(transformer, caches)
    transformer.transformer_blocks = torch.nn.ModuleList([Called(stack.begin)])
    transformer.single_transformer_blocks = torch.nn.ModuleList([Called(stack.end)])
    latents = final_latents(pipeline, run, model.options)
    transformer.transformer_blocks, transformer.single_transformer_blocks = stack.blocks, stack.single_blocks
    assert stack.forwards == run.steps * len(branches)
    compared = "accumulated" if study.backend == "tea_cache" else "accumulated_errors"
    contexts = [
        context("+".join(LISTS), branch, skipped, cache.report()[compared])
        for branch, skipped, cache in zip(branches, stack.skipped_steps, caches, strict=True)
    ]
    return contexts, latents


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/cache", help="the folder to write to")
    out = parser.parse_args().out
    quiet()
    for model in models():
        folder = ROOT / "tests/fixtures" / model.name / "model"
        pipeline = Flux2KleinPipeline.from_pretrained(folder, dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        goldens, tensors = [], {}
        for study in studies(model.name):
            run = next(run for run in model.runs if run.name == study.run)
            cached = with_cache_dit if study.backend == "cache_dit" else with_stack
            contexts, latents = cached(pipeline, study, run, model)
            golden = {
                "name": study.name,
                "run": study.run,
                "cache_backend": study.backend,
                "cache_config": request_keys(study),
                "margin": margin(study, contexts),
                "contexts": contexts,
                **size_of(latents),
            }
            tensors[study.name] = latents.contiguous()
            goldens.append(golden)
            print(study.name, golden["margin"], [one["cached_steps"] for one in contexts], flush=True)
        close = [one["name"] for one in goldens if one["margin"] is not None and one["margin"] < SAFE_MARGIN]
        assert not close, f"decided too closely: {close}"
        save_file(tensors, out / f"{FILES[model.name]}.safetensors")
        (out / f"{FILES[model.name]}.json").write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
