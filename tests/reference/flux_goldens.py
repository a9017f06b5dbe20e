"""Tiny FLUX models in diffusers' layout, and what FluxPipeline makes of them.

    python tests/reference/flux_goldens.py [--out tests/fixtures]

Writes `flux-dev/` (guidance embedding, timesteps shifted by the number of image tokens) and `flux-schnell/` (neither):
the model under `model/`, and beside it `golden.json`, `golden.safetensors` and one PNG per run.
`tests/reference/README.md` lists every key.

The weights are random. The model predicts a velocity, so its trajectories are bounded without training.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from text_to_image import (
    PROMPTS,
    ROOT,
    STEPS,
    Goldens,
    Run,
    cached_runs,
    clip_encoder,
    quiet,
    randomise_norms,
    save,
    silence_fast_frequencies,
    t5_encoder,
)
from tiny_models import vae_config
from tiny_tokenizers import CLIP_END, CLIP_MAX_LENGTH, train_clip, train_t5, write_clip, write_t5
from transformers import CLIPTextModel, CLIPTokenizer, T5Tokenizer

T5_PIECES, T5_TOKENS = 320, 448
OLD_END_ID = 2
"""The `eos_token_id` in the config of the CLIP encoder published with FLUX."""
TRUE_GUIDANCE = {"true_cfg_scale": 3.0}


@dataclass(frozen=True)
class TinyFlux:
    """One folder: what differs between the two."""

    name: str
    seed: int
    transformer: dict
    scheduler: dict
    end_id: int
    max_sequence_length: int
    runs: tuple[Run, ...]


def models() -> tuple[TinyFlux, ...]:
    shifts = dict(base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096)
    return (
        TinyFlux(
            name="flux-dev",
            seed=0,
            transformer=dict(
                num_layers=4,
                num_single_layers=6,
                attention_head_dim=16,
                num_attention_heads=2,
                axes_dims_rope=(4, 6, 6),
                guidance_embeds=True,
            ),
            scheduler=dict(shift=3.0, use_dynamic_shifting=True, **shifts),
            end_id=OLD_END_ID,
            max_sequence_length=512,
            runs=(
                Run("short", "short", "empty", 1, STEPS, 3.5, 64, 64),
                Run("short_true_cfg", "short", "negative", 2, STEPS, 3.5, 64, 96, TRUE_GUIDANCE),
                Run("long", "long", "empty", 3, STEPS, 7.0, 96, 64),
                Run("long_true_cfg", "long", "negative", 4, 9, 1.0, 64, 64, TRUE_GUIDANCE),
            ),
        ),
        TinyFlux(
            name="flux-schnell",
            seed=2,
            transformer=dict(
                num_layers=3,
                num_single_layers=5,
                attention_head_dim=12,
                num_attention_heads=3,
                axes_dims_rope=(2, 4, 6),
                guidance_embeds=False,
            ),
            scheduler=dict(shift=1.0, use_dynamic_shifting=False, **shifts),
            end_id=train_clip()[0][CLIP_END],
            max_sequence_length=256,
            runs=(
                Run("short", "short", "empty", 1, STEPS, 0.0, 64, 64),
                Run("four_steps", "short", "empty", 2, 4, 0.0, 64, 96),
                Run("long", "long", "empty", 3, 4, 0.0, 96, 64),
                Run("one_step", "long", "empty", 4, 1, 0.0, 64, 64),
                Run("short_true_cfg", "short", "negative", 5, 4, 0.0, 64, 64, TRUE_GUIDANCE),
            ),
        ),
    )


def build(model: TinyFlux, folder: Path) -> None:
    """One model folder; CLIP 24 wide, T5 40, VAE with 16 channels and a shift."""
    torch.manual_seed(model.seed)
    write_clip(folder / "tokenizer", pad_token=CLIP_END)
    write_t5(folder / "tokenizer_2", train_t5(T5_PIECES), as_tokenizer_json=True)
    pipeline = FluxPipeline(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=T5Tokenizer.from_pretrained(folder / "tokenizer_2"),
        text_encoder=clip_encoder(CLIPTextModel, 24, 3, 3, "quick_gelu", model.end_id),
        text_encoder_2=t5_encoder(T5_TOKENS, width=40, heads=4, head_dim=8, feed_forward=64, layers=2),
        vae=AutoencoderKL(
            **vae_config(
                (8, 8, 16, 16),
                latent_channels=16,
                norm_num_groups=4,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            )
        ),
        transformer=FluxTransformer2DModel(
            joint_attention_dim=40, pooled_projection_dim=24, **model.transformer
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, **model.scheduler),
    )
    liven(pipeline)
    save(pipeline, folder)


@torch.no_grad()
def liven(pipeline) -> None:
    """Make latents, time, guidance and text show in every block and in the velocity."""
    transformer = pipeline.transformer
    transformer.x_embedder.weight.mul_(2)
    embedders = transformer.time_text_embed
    for embedder in (embedders.timestep_embedder, getattr(embedders, "guidance_embedder", None)):
        if embedder is not None:
            silence_fast_frequencies(embedder)
            embedder.linear_2.weight.mul_(1.2)
    transformer.context_embedder.weight.mul_(3)
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        for name in ("norm", "norm1", "norm1_context"):
            if hasattr(block, name):
                getattr(block, name).linear.weight.mul_(4)
    transformer.proj_out.weight.mul_(4)
    randomise_norms(transformer)
    for name, weight in transformer.named_parameters():
        if any(norm in name for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")):
            weight.mul_(1.5)  # attention that prefers some tokens
    randomise_norms(pipeline.vae)


@torch.no_grad()
def expect(pipeline, model: TinyFlux, folder: Path) -> None:
    """Record the goldens of one model."""
    length = model.max_sequence_length
    goldens = Goldens(pipeline, folder, max_sequence_length=length)
    goldens.tokens({"tokenizer": CLIP_MAX_LENGTH, "tokenizer_2": length})
    for name, text in PROMPTS.items():
        states, pooled, _ = pipeline.encode_prompt(text, max_sequence_length=length)
        goldens.tensors[f"prompt.{name}.states"], goldens.tensors[f"prompt.{name}.pooled"] = states, pooled
    goldens.runs(model.runs, with_image=("short",))
    transformer = pipeline.transformer
    blocks, single_blocks = transformer.transformer_blocks, transformer.single_transformer_blocks
    goldens.forward(
        model.runs[0],
        step=7,
        inside={
            "x_embedder": transformer.x_embedder,
            "time_text_embed": transformer.time_text_embed,
            "context_embedder": transformer.context_embedder,
            "pos_embed": transformer.pos_embed,
            "block.0": blocks[0],
            f"block.{len(blocks) - 1}": blocks[-1],
            "single_block.0": single_blocks[0],
            f"single_block.{len(single_blocks) - 1}": single_blocks[-1],
        },
    )
    goldens.cached(model.runs[0], cached_runs())
    goldens.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="where the folders go")
    out = parser.parse_args().out
    quiet()
    for model in models():
        folder = out / model.name
        shutil.rmtree(folder, ignore_errors=True)
        build(model, folder / "model")
        print(model.name)
        pipeline = FluxPipeline.from_pretrained(folder / "model", dtype=torch.float32)
        expect(pipeline, model, folder)


if __name__ == "__main__":
    main()
