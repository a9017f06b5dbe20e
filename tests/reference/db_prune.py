"""Golden runs of cache-dit's DBPrune on the tiny DiT: which blocks are pruned, and what becomes of the latents.

    python tests/reference/db_prune.py [--out tests/fixtures/cache]

The model, the noise, the labels, the guidance and the scheduler are those of `tiny_dit_goldens.py`: 8 blocks, two
pictures, 28 DDIM steps, conditional and unconditional rows in one batch except where the name says `sepcfg`.
cache-dit 1.5.3 cannot prune blocks that take and return the hidden states alone, as a DiT's do; here they are
declared to take an encoder state too, which is always None and of no effect.

Writes

* `db_prune.json`: for every run
  - `name`, and `config` with the keys of a request's cache config, all that matter being present,
  - `tag`, as `cache_dit.strify` prints it,
  - `cached_steps`: the steps that pruned at least one block,
  - `residual_diffs`: step -> distances in the order of the blocks compared (-1 where the threshold is 1 or more),
  - `pruned_blocks` and `actual_blocks`: one count per step, pruned ones and all, and `pruned_ratio`,
  - `cfg_...`: the same of the unconditional branch, where `separate_cfg` is true,
  - `margin`: how far the closest decision was from turning; null where nothing was compared,
  - `steps`, `separate_cfg` and, to compare by eye, `latents_sum` and `latents_norm`,
* `db_prune.safetensors`: `latents.NAME`, each `[2, 4, 8, 8]`.

After a forced refresh cache-dit forgets what was before it: lists and step numbers start anew.
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
    BlockAdapter,
    DBPruneConfig,
    FoCaCalibratorConfig,
    ForwardPattern,
    TaylorSeerCalibratorConfig,
    steps_mask,
)
from cache_dit.caching.patch_functors import DiTPatchFunctor
from safetensors.torch import load_file, save_file
from tiny_dit_goldens import ROOT, TinyDit, size_of

STEPS = 28
SAFE_MARGIN = 2e-4
"""Sums in another order move a distance by about 1e-6."""

DEFAULTS = dict(
    cache_type="DBPrune",
    Fn_compute_blocks=1,
    Bn_compute_blocks=0,
    max_warmup_steps=4,
    warmup_interval=1,
    residual_diff_threshold=0.122,
    max_cached_steps=-1,
    max_continuous_cached_steps=-1,
)


@dataclass(frozen=True)
class Study:
    """One run: the options in which its request differs from `DEFAULTS`."""

    name: str
    options: dict

    @property
    def request(self) -> dict:
        return DEFAULTS | self.options

    @property
    def separate_cfg(self) -> bool:
        return self.options.get("enable_separate_cfg", False)

    @property
    def is_static(self) -> bool:
        return self.options.get("scm_steps_policy") == "static"

    def config(self) -> DBPruneConfig:
        options = {key: value for key, value in self.request.items() if key not in NOT_IN_CONFIG}
        policy = self.options.get("scm_steps_mask_policy")
        if policy is not None:
            options["steps_computation_mask"] = steps_mask(total_steps=STEPS, mask_policy=policy)
            options["steps_computation_policy"] = self.options["scm_steps_policy"]
        return DBPruneConfig(**options)

    def calibrator(self):
        cached = {"calibrator_cache_type": self.options.get("calibrator_cache_type", "residual")}
        if self.options.get("enable_taylorseer"):
            return TaylorSeerCalibratorConfig(taylorseer_order=self.options["taylorseer_order"], **cached)
        if self.options.get("enable_foca"):
            return FoCaCalibratorConfig(**cached)
        return None


NOT_IN_CONFIG = {
    "cache_type",
    "scm_steps_mask_policy",
    "scm_steps_policy",
    "enable_taylorseer",
    "taylorseer_order",
    "calibrator_cache_type",
    "enable_foca",
}
"""Keys of a request that cache-dit takes in other places."""


def studies() -> list[Study]:
    def study(name: str, **options) -> Study:
        return Study(name, options)

    def threshold(value: float, **options) -> dict:
        return dict(residual_diff_threshold=value, **options)

    def dynamic(value: float, **options) -> dict:
        return threshold(value, enable_dynamic_prune_threshold=True, **options)

    def masked(policy: str, mode: str, **options) -> dict:
        return dict(scm_steps_mask_policy=policy, scm_steps_policy=mode, **options)

    taylor1 = dict(enable_taylorseer=True, taylorseer_order=1)
    taylor2 = dict(enable_taylorseer=True, taylorseer_order=2)
    separate = dict(enable_separate_cfg=True)
    return [
        # thresholds and kept blocks
        study("F1B0_R0.122"),
        study("F1B0_R0.08", **threshold(0.08)),
        study("F1B0_R1.0_MC2", **threshold(1.0, max_continuous_cached_steps=2)),
        study("F2B2_R0.16", Fn_compute_blocks=2, Bn_compute_blocks=2, **threshold(0.16)),
        study("F4B0_R0.14", Fn_compute_blocks=4, **threshold(0.14)),
        study("F8B0_all_blocks_are_Fn", Fn_compute_blocks=8),
        study("kept_blocks_R0.135", non_prune_block_ids=[2, 5, 11], **threshold(0.135)),
        # limits
        study("max_cached_5_R0.16", max_cached_steps=5, **threshold(0.16)),
        study("MC2_R0.235", max_continuous_cached_steps=2, **threshold(0.235)),
        study("W8_I2_R0.2", max_warmup_steps=8, warmup_interval=2, **threshold(0.2)),
        study("max_acc_has_no_effect", max_accumulated_residual_diff_threshold=0.05),
        study("refresh_hint_14_once", force_refresh_step_hint=14, force_refresh_step_policy="once"),
        # dynamic thresholds
        study("dynamic_R0.08", **dynamic(0.08)),
        study("dynamic_R0.08_max0.12", **dynamic(0.08, max_dynamic_prune_threshold=0.12)),
        study(
            "dynamic_R0.06_max0.3_relax1.1",
            **dynamic(0.06, max_dynamic_prune_threshold=0.3, dynamic_prune_threshold_relax_ratio=1.1),
        ),
        # calibrators, one state per block
        study("Taylor1", **taylor1),
        study("Taylor2_R0.2_MC3", **taylor2, **threshold(0.2, max_continuous_cached_steps=3)),
        study("Taylor1_hidden_states", **taylor1, calibrator_cache_type="hidden_states"),
        study("FoCa", enable_foca=True),
        # step masks
        study("SCM_medium_dynamic", **masked("medium", "dynamic")),
        study("SCM_medium_static", **masked("medium", "static")),
        study(
            "SCM_fast_static_Taylor1_F2B1",
            Fn_compute_blocks=2,
            Bn_compute_blocks=1,
            **masked("fast", "static"),
            **taylor1,
        ),
        # two forwards per step
        study("sepcfg", **separate),
        study("sepcfg_dynamic_R0.07", **separate, **dynamic(0.07)),
    ]


class BlockWithEncoderState(torch.nn.Module):
    """A block of the DiT as cache-dit's pattern 2: hidden states and encoder state in, hidden states out."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner = inner
        self.norm1 = inner.norm1  # its embedder also conditions the last layer

    def forward(self, hidden_states, encoder_hidden_states=None, **kwargs):
        return self.inner(hidden_states, encoder_hidden_states=encoder_hidden_states, **kwargs)


def prunable_dit() -> TinyDit:
    model = TinyDit()
    blocks = [BlockWithEncoderState(block) for block in model.transformer.transformer_blocks]
    model.transformer.transformer_blocks = torch.nn.ModuleList(blocks)
    return model


def sample(model: TinyDit, study: Study) -> torch.Tensor:
    return model.sample_separately(STEPS) if study.separate_cfg else model.sample("ddim", STEPS)


def run(study: Study) -> tuple[dict, torch.Tensor]:
    """One study on a fresh model: its entry in `db_prune.json` and its final latents."""
    model = prunable_dit()
    adapter = BlockAdapter(
        pipe=None if study.separate_cfg else model.pipeline,
        transformer=model.transformer,
        blocks=model.transformer.transformer_blocks,
        forward_pattern=ForwardPattern.Pattern_2,
        patch_functor=DiTPatchFunctor(),
        has_separate_cfg=study.separate_cfg,
    )
    cache_dit.enable_cache(adapter, cache_config=study.config(), calibrator_config=study.calibrator())
    latents = sample(model, study)
    stats = cache_dit.summary(model.transformer, logging=False)[-1]
    if not study.separate_cfg:  # without the pipeline cache-dit does not notice that a new request starts
        assert torch.equal(sample(model, study), latents), f"{study.name}: a second request differs"
    golden = {
        "name": study.name,
        "steps": STEPS,
        "separate_cfg": study.separate_cfg,
        "tag": cache_dit.strify(stats),
        "config": study.request,
        "margin": margin(study, stats),
        "cached_steps": stats.pruned_steps,
        "residual_diffs": dict(stats.residual_diffs),
        "pruned_blocks": stats.pruned_blocks,
        "actual_blocks": stats.actual_blocks,
        "pruned_ratio": stats.pruned_ratio,
        **size_of(latents),
    }
    if study.separate_cfg:
        golden |= {
            "cfg_cached_steps": stats.cfg_pruned_steps,
            "cfg_residual_diffs": dict(stats.cfg_residual_diffs),
            "cfg_pruned_blocks": stats.cfg_pruned_blocks,
            "cfg_actual_blocks": stats.cfg_actual_blocks,
            "cfg_pruned_ratio": stats.cfg_pruned_ratio,
        }
    return golden, latents


def margin(study: Study, stats) -> float | None:
    """By how much a distance or a dynamic threshold would have to change for another decision.

    Works out the threshold of every comparison and checks that it explains what was pruned.
    """
    margins = []
    conditional = stats.residual_diffs
    branches = (
        (conditional, stats.pruned_blocks),
        (stats.cfg_residual_diffs, stats.cfg_pruned_blocks),
    )
    for is_cfg, (diffs, pruned_blocks) in enumerate(branches):
        for step, pruned in enumerate(pruned_blocks):
            compared = diffs.get(str(step), [])
            similar = 0
            for index, diff in enumerate(compared):
                # cache-dit takes the conditional branch's distances, whichever branch it decides for.
                seen = conditional.get(str(step), []) if is_cfg else compared[:index]
                threshold, alternative = thresholds(study.request, seen)
                similar += diff < threshold
                if diff >= 0:
                    margins.append(abs(diff - threshold))
                    if alternative is not None and (diff < threshold) != (diff < alternative[0]):
                        margins.append(alternative[1])
            assert study.is_static or similar == pruned, f"{study.name} step {step}: {similar} and not {pruned}"
    return min(margins, default=None)


def thresholds(request: dict, seen: list[float]) -> tuple[float, tuple[float, float] | None]:
    """The threshold after the distances `seen` in this step.

    A dynamic threshold falls back to the fixed one when it reaches its cap; the second value is the threshold on
    the other side of that cap, and how far away the cap is.
    """
    fixed = request["residual_diff_threshold"]
    positive = [diff for diff in seen[:5] if diff > 0]
    if not request.get("enable_dynamic_prune_threshold") or not positive:
        return fixed, None
    relaxed = sum(positive) / len(positive) * request.get("dynamic_prune_threshold_relax_ratio", 1.25)
    cap = request.get("max_dynamic_prune_threshold", 2 * fixed)
    if relaxed < cap:
        return max(relaxed, fixed), (fixed, cap - relaxed)
    return fixed, (max(cap, fixed), relaxed - cap)


def check_uncached() -> None:
    """Without a cache the wrapped blocks give the latents of `tiny_dit_goldens.py`."""
    goldens = load_file(ROOT / "tests/fixtures/tiny-dit-goldens/golden_tensors.safetensors")
    uncached = prunable_dit().sample("ddim", STEPS)
    assert torch.allclose(uncached, goldens["latents.uncached.ddim.28"], atol=1e-5), "another model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/cache", help="the folder to write to")
    out = parser.parse_args().out
    torch.set_num_threads(1)  # one thread: the same sums in the same order on every machine
    diffusers.utils.logging.set_verbosity_error()

    check_uncached()
    goldens, tensors = [], {}
    for study in studies():
        golden, tensors[f"latents.{study.name}"] = run(study)
        goldens.append(golden)
        print(study.name, golden["tag"], golden["pruned_blocks"], golden["margin"], flush=True)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "db_prune.safetensors")
    (out / "db_prune.json").write_text("[\n" + ",\n".join(json.dumps(golden) for golden in goldens) + "\n]\n")
    close = [golden["name"] for golden in goldens if (golden["margin"] or 1) < SAFE_MARGIN]
    assert not close, f"decided too closely: {close}"


if __name__ == "__main__":
    main()
