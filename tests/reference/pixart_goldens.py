"""Tiny PixArt models in diffusers' layout, and what PixArtAlphaPipeline and PixArtSigmaPipeline make of them.

    python tests/reference/pixart_goldens.py [--out tests/fixtures]

Writes `pixart-alpha/` and `pixart-sigma/`: the model under `model/`, and beside it `golden.json`,
`golden.safetensors` and one PNG per run. `tests/reference/README.md` lists every key.

The weights are random but for one layer. PixArt predicts noise and divides by a signal that begins at 0.006 of the
latents, so a net that knows nothing about noise would end at latents of ten thousands. `teach_noise` therefore fits
the last layer by least squares to the noise that was added to made-up latents, in closed form, so that the
result does not depend on an optimiser's path.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from text_to_image import (
    PROMPTS,
    ROOT,
    STEPS,
    Goldens,
    Run,
    cached_runs,
    quiet,
    randomise_norms,
    save,
    silence_fast_frequencies,
    t5_encoder,
)
from tiny_models import keep_keys, read_json, vae_config, write_json
from tiny_tokenizers import captions, train_t5, write_t5
from transformers import T5Tokenizer

PIECES, TOKENS = 320, 448
"""Pieces of the tokenizer, and rows of the embedding: as published, a few more than pieces and sentinels."""


def build_alpha(folder: Path) -> None:
    """PixArt-alpha as published in 2023: sample size 128, so size conditions; spiece.model alone; sharded encoder."""
    torch.manual_seed(0)
    write_t5(folder / "tokenizer", train_t5(PIECES), as_tokenizer_json=False)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        num_layers=8,
        cross_attention_dim=48,
        caption_channels=32,
        sample_size=128,
    )
    pipeline = PixArtAlphaPipeline(
        tokenizer=T5Tokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=t5_encoder(TOKENS, width=32, heads=4, head_dim=8, feed_forward=64, layers=2),
        vae=AutoencoderKL(**vae_config((8, 8, 16, 16), latent_channels=4, norm_num_groups=4, scaling_factor=0.18215)),
        transformer=transformer.eval(),
        scheduler=scheduler(),
    )
    liven(pipeline)
    teach_noise(pipeline, max_length=120, latents_size=8)
    save(pipeline, folder)
    pipeline.text_encoder.save_pretrained(folder / "text_encoder", max_shard_size="60KB")
    (folder / "text_encoder" / "model.safetensors").unlink()
    publish_as_in_2023(folder)


def build_sigma(folder: Path) -> None:
    """PixArt-Sigma: no size conditions, other shape, `tokenizer.json` beside spiece.model, interpolated positions."""
    torch.manual_seed(1)
    write_t5(folder / "tokenizer", train_t5(PIECES), as_tokenizer_json=True)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=6,
        cross_attention_dim=64,
        caption_channels=24,
        sample_size=32,
        interpolation_scale=2,
        use_additional_conditions=False,
    )
    pipeline = PixArtSigmaPipeline(
        tokenizer=T5Tokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=t5_encoder(TOKENS, width=24, heads=3, head_dim=16, feed_forward=40, layers=3),
        vae=AutoencoderKL(**vae_config((8, 16, 16), latent_channels=4, norm_num_groups=8, scaling_factor=0.13025)),
        transformer=transformer.eval(),
        scheduler=scheduler(),
    )
    liven(pipeline)
    teach_noise(pipeline, max_length=300, latents_size=16)
    save(pipeline, folder)


def scheduler() -> DPMSolverMultistepScheduler:
    """PixArt's: DPM-Solver++ of order 2, linear betas, noise prediction."""
    return DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", solver_order=2)


@torch.no_grad()
def liven(pipeline) -> None:
    """Make latents, time and text show in every block, and move the VAE's norms off ones and zeros."""
    transformer = pipeline.transformer
    transformer.pos_embed.proj.weight.mul_(6)
    silence_fast_frequencies(transformer.adaln_single.emb.timestep_embedder)
    transformer.adaln_single.emb.timestep_embedder.linear_2.weight.mul_(2)
    transformer.adaln_single.linear.weight.mul_(3)
    for block in transformer.transformer_blocks:
        for attention in (block.attn1, block.attn2):
            attention.to_q.weight.mul_(2)
            attention.to_k.weight.mul_(2)
        block.attn2.to_v.weight.mul_(1.6)
        block.attn2.to_out[0].weight.mul_(1.6)
    randomise_norms(pipeline.vae)


@torch.no_grad()
def teach_noise(pipeline, max_length: int, latents_size: int) -> None:
    """Fit `proj_out` to the noise in noisy latents, and leave the rows of the learned sigma random.

    The latents are coarse patterns that depend on a caption, with some detail; high noise is drawn more often.
    """
    transformer, patch, rows = pipeline.transformer, pipeline.transformer.config.patch_size, 8
    features: list[torch.Tensor] = []
    handle = transformer.proj_out.register_forward_pre_hook(lambda module, args: features.append(args[0]))
    generator = torch.Generator().manual_seed(1)
    channels, texts, targets = transformer.config.in_channels, captions(64), []
    shape, patches = (rows, channels, latents_size, latents_size), latents_size // patch
    to_pattern = torch.randn(pipeline.text_encoder.config.d_model, channels * 4, generator=generator)
    sizes = torch.full((rows, 2), float(latents_size * pipeline.vae_scale_factor))
    has_sizes = transformer.use_additional_conditions
    for batch in range(64):
        texts_here = [texts[(batch * rows + row) % len(texts)] for row in range(rows)]
        states, mask, _, _ = pipeline.encode_prompt(texts_here, False, max_sequence_length=max_length)
        mean_state = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        pattern = (mean_state @ to_pattern).view(rows, channels, 2, 2)
        clean = torch.nn.functional.interpolate(pattern / pattern.std(), size=shape[2:], mode="bilinear")
        clean = clean + 0.3 * torch.randn(shape, generator=generator)
        timesteps = (999 * (1 - torch.rand(rows, generator=generator) ** 3)).round().long()
        noise = torch.randn(shape, generator=generator)
        signal = pipeline.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        transformer(
            signal.sqrt() * clean + (1 - signal).sqrt() * noise,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=timesteps,
            added_cond_kwargs={
                "resolution": sizes if has_sizes else None,
                "aspect_ratio": torch.ones(rows, 1) if has_sizes else None,
            },
        )
        in_patches = noise.view(rows, channels, patches, patch, patches, patch).permute(0, 2, 4, 3, 5, 1)
        targets.append(in_patches.reshape(-1, patch * patch * channels).double())
    handle.remove()
    inputs = torch.cat(features).double().flatten(0, 1)
    inputs, target = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1), torch.cat(targets)
    gram = inputs.T @ inputs
    ridge = 1e-3 * gram.trace() / len(gram) * torch.eye(len(gram))
    solution = torch.linalg.solve(gram + ridge, inputs.T @ target).float()
    print(f"noise is missed by {(inputs @ solution.double() - target).std():.3f} of {target.std():.3f}")
    weight = transformer.proj_out.weight.view(patch, patch, -1, inputs.shape[1] - 1)
    weight[:, :, :channels] = solution[:-1].T.reshape(patch, patch, channels, -1)
    transformer.proj_out.bias.view(patch, patch, -1)[:, :, :channels] = solution[-1].view(patch, patch, channels)


def publish_as_in_2023(folder: Path) -> None:
    """Class names and configs as in the published PixArt-alpha repositories."""
    index = read_json(folder / "model_index.json")
    index = {name: value for name, value in index.items() if not name.startswith("_")}
    index["transformer"] = ["diffusers", "Transformer2DModel"]
    legacy = {"_class_name": "PixArtAlphaPipeline", "_diffusers_version": "0.22.0.dev0"}
    write_json(folder / "model_index.json", legacy | index)

    path = folder / "transformer" / "config.json"
    config = read_json(path) | {
        "_class_name": "Transformer2DModel",
        "_diffusers_version": "0.22.0.dev0",
        "double_self_attention": False,
        "num_vector_embeds": None,
        "only_cross_attention": False,
        "use_linear_projection": False,
    }
    del config["interpolation_scale"], config["use_additional_conditions"]
    write_json(path, dict(sorted(config.items())))

    keep_keys(
        folder / "scheduler" / "scheduler_config.json",
        "0.22.0.dev0",
        ("algorithm_type", "beta_end", "beta_schedule", "beta_start", "dynamic_thresholding_ratio", "euler_at_final")
        + ("lambda_min_clipped", "lower_order_final", "num_train_timesteps", "prediction_type", "sample_max_value")
        + ("solver_order", "solver_type", "steps_offset", "thresholding", "timestep_spacing", "trained_betas")
        + ("use_karras_sigmas", "use_lu_lambdas", "variance_type"),
    )

    path = folder / "text_encoder" / "config.json"
    config = read_json(path)
    config = {
        "architectures": ["T5EncoderModel"],
        "d_ff": config["d_ff"],
        "d_kv": config["d_kv"],
        "d_model": config["d_model"],
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu_new",
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "num_decoder_layers": config["num_layers"],
        "num_heads": config["num_heads"],
        "num_layers": config["num_layers"],
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.21.1",
        "use_cache": True,
        "vocab_size": config["vocab_size"],
    }
    write_json(path, config)


@torch.no_grad()
def expect(pipeline, folder: Path, max_length: int, runs: tuple[Run, ...]) -> None:
    """Record the goldens of one model."""
    goldens = Goldens(pipeline, folder, clean_caption=False, use_resolution_binning=False)
    goldens.tokens({"tokenizer": max_length}, preprocess=lambda text: text.lower().strip())
    for name, text in PROMPTS.items():
        states, mask, _, _ = pipeline.encode_prompt(text, False, max_sequence_length=max_length)
        goldens.tensors[f"prompt.{name}.states"] = states
        assert mask[0].tolist() == next(
            prompt["tokens"]["tokenizer"]["attention_mask"]
            for prompt in goldens.json["prompts"]
            if prompt["name"] == name
        )
    goldens.runs(runs, with_image=("short",))
    transformer = pipeline.transformer
    goldens.forward(
        runs[0],
        step=7,
        inside={
            "pos_embed": transformer.pos_embed,
            "adaln_single": transformer.adaln_single,
            "caption_projection": transformer.caption_projection,
            "block.0": transformer.transformer_blocks[0],
            f"block.{len(transformer.transformer_blocks) - 1}": transformer.transformer_blocks[-1],
        },
    )
    goldens.cached(runs[0], cached_runs())
    goldens.write()


def runs(size: int) -> tuple[Run, ...]:
    """Both prompts with and without a negative one, square and not, and one run without guidance."""
    return (
        Run("short", "short", "empty", 1, STEPS, 4.5, size, size),
        Run("short_negative", "short", "negative", 2, STEPS, 4.5, size, size * 3 // 2),
        Run("long", "long", "empty", 3, STEPS, 4.5, size * 3 // 2, size),
        Run("long_negative", "long", "negative", 4, STEPS, 2.0, size, size),
        Run("unguided", "short", "negative", 5, 9, 1.0, size, size),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="where the folders go")
    out = parser.parse_args().out
    quiet()
    for name, build, pipeline_class, max_length in (
        ("pixart-alpha", build_alpha, PixArtAlphaPipeline, 120),
        ("pixart-sigma", build_sigma, PixArtSigmaPipeline, 300),
    ):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        build(folder / "model")
        print(name)
        pipeline = pipeline_class.from_pretrained(folder / "model", dtype=torch.float32)
        expect(pipeline, folder, max_length, runs(64))


if __name__ == "__main__":
    main()
