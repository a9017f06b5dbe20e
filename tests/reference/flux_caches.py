"""Caches that are FLUX's own, on the model of `flux_goldens.py`.

    python tests/reference/flux_caches.py [--out tests/fixtures/cache]

* Each block list with a context of its own, as vLLM-Omni has it, where cache-dit joins both. (cache-dit does so too
  under CACHE_DIT_FLUX_ENABLE_DUMMY_BLOCKS=0.)
* True classifier-free guidance, whose two forwards per step are two branches. (cache-dit has to be told by
  `enable_separate_cfg`; by default it takes FLUX's second forward for the next step.)
* TeaCache and MagCache with the numbers published for FLUX.1, by the rules of `tea_cache.py`: both lists of blocks are
  one stack, of which image and text are kept.

Writes `flux_caches.json`, a list of runs of `fixtures/flux-dev` with

* `name`, `run` (a run of `flux-dev/golden.json`), `cache_backend` and `cache_config` (of a request),
* `margin`: how far the closest decision was from turning; null where nothing was compared,
* `contexts`: `name`, `branch`, `cached_steps`, and `compared`, step -> what was compared with the threshold,
* to compare by eye, `latents_sum` and `latents_norm`,

and `flux_caches.safetensors` with the final latents by name, `[1, T, 64]`.
"""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import cache_dit
import torch
from cache_dit.envs import ENV
from diffusers import FluxPipeline
from flux_goldens import models
from safetensors.torch import save_file
from tea_cache import FLUX_COEFFICIENTS, FLUX_RATIOS, SAFE_MARGIN, MagCache, TeaCache
from text_to_image import ROOT, Run, quiet, recorded_steps
from tiny_dit_goldens import LOOSE, db_cache, size_of, taylor

MODEL = "flux-dev"
LISTS = ("transformer_blocks", "single_transformer_blocks")
BRANCHES = ("cond", "uncond")


@dataclass(frozen=True)
class Study:
    """A run with a cache; `config` are keys of a request's `cache_config`."""

    name: str
    run: str
    backend: str
    config: dict
    order: int | None = None
    """Of TaylorSeer, where it is on."""

    @property
    def request_config(self) -> dict:
        if self.order is None:
            return self.config
        return self.config | {"enable_taylorseer": True, "taylorseer_order": self.order}


def studies() -> list[Study]:
    basic = dict(Fn_compute_blocks=1, Bn_compute_blocks=0, max_warmup_steps=4, max_continuous_cached_steps=-1)

    def separate_lists(name: str, threshold: float = 0.12, order: int | None = None, **options) -> Study:
        config = basic | dict(residual_diff_threshold=threshold, block_lists="separate") | options
        return Study(f"separate_lists.{name}", "short", "cache_dit", config, order)

    def true_cfg(name: str, threshold: float = 0.12, order: int | None = None, **options) -> Study:
        config = basic | dict(residual_diff_threshold=threshold, enable_separate_cfg=True) | options
        return Study(f"true_cfg.{name}", "short_true_cfg", "cache_dit", config, order)

    def tea(name: str, run: str, threshold: float, **options) -> Study:
        return Study(f"tea.{name}", run, "tea_cache", dict(rel_l1_thresh=threshold, **options))

    def mag(name: str, run: str, **options) -> Study:
        return Study(f"mag.{name}", run, "mag_cache", options)

    return [
        separate_lists("F1B0_R0.12"),
        separate_lists("F1B1_R0.24_MC3", Bn_compute_blocks=1, **LOOSE),
        separate_lists("F2B0_R0.15_Taylor1", 0.15, 1, Fn_compute_blocks=2),
        true_cfg("F1B0_R0.12"),
        true_cfg("F1B0_R0.24_MC3_Taylor1", order=1, **LOOSE),
        true_cfg("shared_diff", cfg_diff_compute_separate=False),
        tea("R0.2", "short", 0.2),
        tea("R0.4", "short", 0.4),
        tea("R0.8", "short", 0.8),
        tea("R0.6_long", "long", 0.6, num_warmup_steps=2, force_last_step=True),
        tea("R0.4_true_cfg", "short_true_cfg", 0.4),
        mag("defaults", "short"),
        mag("R0.1_true_cfg", "short_true_cfg", mag_threshold=0.1),
    ]


class BlockStack(torch.nn.Module):
    """The blocks of both lists as one that may be skipped; one cache per branch, which take turns."""

    def __init__(self, transformer, caches: list):
        super().__init__()
        self.blocks = torch.nn.ModuleList([*transformer.transformer_blocks, *transformer.single_transformer_blocks])
        self.caches = caches
        self.forwards = 0
        self.residuals: list = [None] * len(caches)
        self.skipped_steps: list[list[int]] = [[] for _ in caches]

    def forward(self, hidden_states, encoder_hidden_states, temb, **kwargs):
        step, branch = divmod(self.forwards, len(self.caches))
        self.forwards += 1
        modulated_input = self.blocks[0].norm1(hidden_states, emb=temb)[0]
        text, image = encoder_hidden_states, hidden_states
        if self.caches[branch].skips(step, modulated_input):
            self.skipped_steps[branch].append(step)
            text_residual, image_residual = self.residuals[branch]
            return text + text_residual, image + image_residual
        for block in self.blocks:
            text, image = block(image, text, temb, **kwargs)
        self.residuals[branch] = (text - encoder_hidden_states, image - hidden_states)
        return text, image


def final_latents(pipeline, run: Run, length: int) -> torch.Tensor:
    with recorded_steps(pipeline) as steps:
        pipeline(**run.arguments(), max_sequence_length=length, output_type="latent")
    return steps.latents[-1]


def context(name: str, branch: str, cached_steps: list[int], compared: dict) -> dict:
    compared = {int(step): value for step, value in compared.items()}
    return {"name": name, "branch": branch, "cached_steps": list(cached_steps), "compared": compared}


def with_cache_dit(pipeline, study: Study, run: Run, length: int) -> tuple[list[dict], torch.Tensor]:
    options = dict(study.config)
    is_separate = options.pop("block_lists", None) == "separate"
    calibrator = None if study.order is None else taylor(study.order)
    ENV.CACHE_DIT_FLUX_ENABLE_DUMMY_BLOCKS = not is_separate
    cache_dit.enable_cache(pipeline, cache_config=db_cache(**options), calibrator_config=calibrator)
    latents = final_latents(pipeline, run, length)
    stats = cache_dit.summary(pipeline, logging=False)[-1]
    if is_separate:
        # The summary has the lists by alphabet and without their names; they keep theirs themselves.
        lists = {name: getattr(pipeline.transformer, name) for name in LISTS}
        contexts = [
            context(name, "all", blocks._cached_steps, blocks._residual_diffs) for name, blocks in lists.items()
        ]
    else:
        joined = "+".join(LISTS)
        contexts = [
            context(joined, "cond", stats.cached_steps, stats.residual_diffs),
            context(joined, "uncond", stats.cfg_cached_steps, stats.cfg_residual_diffs),
        ]
    cache_dit.disable_cache(pipeline)
    return contexts, latents


def with_stack(pipeline, study: Study, run: Run, length: int) -> tuple[list[dict], torch.Tensor]:
    kind, published = {
        "tea_cache": (TeaCache, {"coefficients": FLUX_COEFFICIENTS}),
        "mag_cache": (MagCache, {"mag_ratios": FLUX_RATIOS}),
    }[study.backend]
    branches = BRANCHES if "true_cfg_scale" in run.options else ("all",)
    caches = [kind(run.steps, **published, **study.config) for _ in branches]
    transformer = pipeline.transformer
    lists = [getattr(transformer, name) for name in LISTS]
    stack = BlockStack(transformer, caches)
    for name, blocks in zip(LISTS, ([stack], []), strict=True):
        setattr(transformer, name, torch.nn.ModuleList(blocks))
    latents = final_latents(pipeline, run, length)
    for name, blocks in zip(LISTS, lists, strict=True):
        setattr(transformer, name, blocks)
    assert stack.forwards == run.steps * len(branches)
    compared = "accumulated" if study.backend == "tea_cache" else "accumulated_errors"
    contexts = [
        context("+".join(LISTS), branch, skipped, cache.report()[compared])
        for branch, skipped, cache in zip(branches, stack.skipped_steps, caches, strict=True)
    ]
    return contexts, latents


def margin(study: Study, contexts: list[dict]) -> float | None:
    config = {"mag_threshold": 0.24} | study.config
    key = {"cache_dit": "residual_diff_threshold", "tea_cache": "rel_l1_thresh", "mag_cache": "mag_threshold"}
    threshold = config[key[study.backend]]
    return min((abs(value - threshold) for one in contexts for value in one["compared"].values()), default=None)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/cache", help="the folder to write to")
    out = parser.parse_args().out
    quiet()
    model = next(model for model in models() if model.name == MODEL)
    pipeline = FluxPipeline.from_pretrained(ROOT / "tests/fixtures" / MODEL / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    goldens, tensors = [], {}
    for study in studies():
        run = next(run for run in model.runs if run.name == study.run)
        cached = with_cache_dit if study.backend == "cache_dit" else with_stack
        contexts, latents = cached(pipeline, study, run, model.max_sequence_length)
        golden = {
            "name": study.name,
            "run": study.run,
            "cache_backend": study.backend,
            "cache_config": study.request_config,
            "margin": margin(study, contexts),
            "contexts": contexts,
            **size_of(latents),
        }
        tensors[study.name] = latents.contiguous()
        goldens.append(golden)
        print(study.name, golden["margin"], [one["cached_steps"] for one in contexts], flush=True)
        assert golden["margin"] is None or golden["margin"] > SAFE_MARGIN, "decided too closely"
    save_file(tensors, out / "flux_caches.safetensors")
    (out / "flux_caches.json").write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
