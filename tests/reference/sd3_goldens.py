"""Tiny Stable Diffusion 3 models in diffusers' layout, and what StableDiffusion3Pipeline makes of them.

    python tests/reference/sd3_goldens.py [--out tests/fixtures]

Writes `sd3/` (shaped as SD3-medium) and `sd3.5/` (shaped as SD3.5-medium): the model under `model/`, and beside it
`golden.json`, `golden.safetensors` and one PNG per run. `tests/reference/README.md` lists every key.

The weights are random. The model predicts a velocity, so its trajectories are bounded without training.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
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
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5Tokenizer

T5_PIECES, T5_TOKENS, T5_LENGTH = 320, 448, 256
OLD_END_ID = 2
"""The `eos_token_id` in the configs of the CLIP encoders published with SD3."""


def build(folder: Path, seed: int, transformer: SD3Transformer2DModel, end_id: int) -> None:
    """One model folder; CLIP encoders 16 and 24 wide, T5 48, VAE with 16 channels and a shift."""
    torch.manual_seed(seed)
    write_clip(folder / "tokenizer", pad_token=CLIP_END)
    write_clip(folder / "tokenizer_2", pad_token="!")
    write_t5(folder / "tokenizer_3", train_t5(T5_PIECES), as_tokenizer_json=True)
    pipeline = StableDiffusion3Pipeline(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        tokenizer_3=T5Tokenizer.from_pretrained(folder / "tokenizer_3"),
        text_encoder=clip_encoder(CLIPTextModelWithProjection, 16, 2, 3, "quick_gelu", end_id),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection, 24, 3, 4, "gelu", end_id),
        text_encoder_3=t5_encoder(T5_TOKENS, width=48, heads=4, head_dim=8, feed_forward=64, layers=2),
        vae=AutoencoderKL(
            **vae_config(
                (8, 8, 16, 16),
                latent_channels=16,
                norm_num_groups=4,
                scaling_factor=1.5305,
                shift_factor=0.0609,
                use_quant_conv=False,
                use_post_quant_conv=False,
            )
        ),
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
    )
    liven(pipeline)
    save(pipeline, folder)


def sd3_transformer() -> SD3Transformer2DModel:
    """As SD3-medium: queries and keys as they are, one attention per block."""
    torch.manual_seed(10)
    return SD3Transformer2DModel(
        sample_size=16,
        num_layers=8,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=32,
        pooled_projection_dim=40,
        pos_embed_max_size=12,
    )


def sd35_transformer() -> SD3Transformer2DModel:
    """As SD3.5-medium: normed queries and keys, a second attention of the image alone in the first blocks."""
    torch.manual_seed(11)
    return SD3Transformer2DModel(
        sample_size=16,
        num_layers=6,
        attention_head_dim=12,
        num_attention_heads=3,
        joint_attention_dim=48,
        caption_projection_dim=36,
        pooled_projection_dim=40,
        pos_embed_max_size=20,
        dual_attention_layers=(0, 1, 2),
        qk_norm="rms_norm",
    )


@torch.no_grad()
def liven(pipeline) -> None:
    """Make latents, time and text show in every block and in the velocity."""
    transformer = pipeline.transformer
    transformer.pos_embed.proj.weight.mul_(2)
    silence_fast_frequencies(transformer.time_text_embed.timestep_embedder)
    transformer.time_text_embed.timestep_embedder.linear_2.weight.mul_(3)
    transformer.context_embedder.weight.mul_(2)
    for block in transformer.transformer_blocks:
        block.norm1.linear.weight.mul_(2)
        for attention in (block.attn, block.attn2):
            if attention is None:
                continue
            for projection in (attention.to_q, attention.to_k, attention.add_q_proj, attention.add_k_proj):
                if projection is not None:
                    projection.weight.mul_(2)
            attention.to_out[0].weight.mul_(2)
    transformer.proj_out.weight.mul_(2)
    randomise_norms(transformer)
    randomise_norms(pipeline.vae)


RUNS = (
    Run("short", "short", "empty", 1, STEPS, 7.0, 64, 64),
    Run("short_negative", "short", "negative", 2, STEPS, 7.0, 64, 96),
    Run("long", "long", "empty", 3, STEPS, 4.0, 96, 64),
    Run("long_negative", "long", "negative", 4, STEPS, 2.0, 64, 64, {"max_sequence_length": 77}),
    Run("unguided", "short", "negative", 5, 9, 1.0, 64, 64),
)
WITHOUT_T5 = Run("without_t5", "short", "negative", 6, STEPS, 5.0, 64, 64)
"""Run on a pipeline that was loaded without its third text encoder."""


@torch.no_grad()
def expect(pipeline, folder: Path) -> None:
    """Record the goldens of one model."""
    goldens = Goldens(pipeline, folder)
    goldens.tokens({"tokenizer": CLIP_MAX_LENGTH, "tokenizer_2": CLIP_MAX_LENGTH, "tokenizer_3": T5_LENGTH})
    for name, text in PROMPTS.items():
        states, _, pooled, _ = pipeline.encode_prompt(text, text, text, do_classifier_free_guidance=False)
        goldens.tensors[f"prompt.{name}.states"], goldens.tensors[f"prompt.{name}.pooled"] = states, pooled
    goldens.runs(RUNS, with_image=("short",))
    transformer = pipeline.transformer
    goldens.forward(
        RUNS[0],
        step=7,
        inside={
            "pos_embed": transformer.pos_embed,
            "time_text_embed": transformer.time_text_embed,
            "context_embedder": transformer.context_embedder,
            "block.0": transformer.transformer_blocks[0],
            f"block.{len(transformer.transformer_blocks) - 1}": transformer.transformer_blocks[-1],
        },
    )
    # The last block returns no text, and cache-dit's calibrator of the text fails on it.
    goldens.cached(RUNS[0], cached_runs(enable_encoder_calibrator=False))
    pipeline.text_encoder_3 = pipeline.tokenizer_3 = None
    goldens.runs((WITHOUT_T5,), with_image=())
    goldens.json["runs"][-1]["without"] = ["text_encoder_3", "tokenizer_3"]
    goldens.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="where the folders go")
    out = parser.parse_args().out
    quiet()
    for name, seed, transformer, end_id in (
        ("sd3", 0, sd3_transformer, OLD_END_ID),
        ("sd3.5", 1, sd35_transformer, train_clip()[0][CLIP_END]),
    ):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        build(folder / "model", seed, transformer(), end_id)
        print(name)
        pipeline = StableDiffusion3Pipeline.from_pretrained(folder / "model", dtype=torch.float32)
        expect(pipeline, folder)


if __name__ == "__main__":
    main()
