"""Tiny FLUX.2 klein models in diffusers' layout, and what Flux2KleinPipeline makes of them.

    python tests/reference/flux2_goldens.py [--out tests/fixtures]

Writes `flux2-klein/` (distilled: no guidance; 28 layers of text encoder, of which the pipeline reads 9, 18 and 27; a
VAE in bf16) and `flux2-klein-base/` (guided by a second forward; four layers of text encoder, layers 1, 2 and 3 are
read; a VAE with a decoder of its own widths; a transformer in bf16 shards): the model under `model/`, and beside it
`golden.json`, `golden.safetensors` and one PNG per run. `tests/reference/README.md` lists every key.
`prompt.NAME.states` are every eighth row of what the text encoder gives of a prompt, padding included.

The weights are random. The model predicts a velocity, so its trajectories are bounded without training.
"""

import argparse
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
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
    save_in_shards,
    silence_fast_frequencies,
)
from tiny_models import read_json, vae_config, write_json
from tiny_tokenizers import captions, write_qwen2
from transformers import Qwen2Tokenizer
from z_image_goldens import text_encoder

TEXT_TOKENS = 512
SPARE_TOKENS = 8
"""Rows of the table of tokens that no token has, as in the published model."""
RECORDED_ROWS = slice(None, None, 8)
UNICODE = "Ein rotes Häuschen 🏠 “你好，世界” <think> cafe\u0301 <|im_end|> 3.14!"
PROMPTS |= {"long": " ".join(captions()[:60]), "unicode": UNICODE}


@dataclass(frozen=True)
class TinyKlein:
    """One folder: what differs between the two."""

    name: str
    seed: int
    is_distilled: bool
    transformer: dict
    text: dict
    vae: dict
    scheduler: dict
    as_tokenizer_json: bool
    runs: tuple[Run, ...]
    cached_run: str
    options: dict = field(default_factory=dict)
    """Of every call of the pipeline."""


def models() -> tuple[TinyKlein, ...]:
    shifts = dict(base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096)
    return (
        TinyKlein(
            name="flux2-klein",
            seed=0,
            is_distilled=True,
            transformer=dict(
                num_layers=6,
                num_single_layers=7,
                in_channels=16,
                attention_head_dim=16,
                num_attention_heads=2,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            ),
            text=dict(hidden_size=16, head_dim=8, num_hidden_layers=28),
            vae=vae_config((8, 8, 16, 16), latent_channels=4, layers_per_block=1, norm_num_groups=4),
            scheduler=dict(shift=3.0, use_dynamic_shifting=True, time_shift_type="exponential", **shifts),
            as_tokenizer_json=True,
            cached_run="short",
            runs=(
                Run("short", "short", None, 1, STEPS, 1.0, 64, 64),
                Run("four_steps", "unicode", None, 2, 4, 1.0, 64, 96),
                Run("long", "long", None, 3, 4, 1.0, 96, 64),
                Run("one_step", "empty", None, 4, 1, 1.0, 64, 64),
                Run("short_text", "long", None, 6, 4, 1.0, 64, 64, dict(max_sequence_length=40)),
            ),
        ),
        TinyKlein(
            name="flux2-klein-base",
            seed=2,
            is_distilled=False,
            transformer=dict(
                num_layers=6,
                num_single_layers=8,
                in_channels=32,
                attention_head_dim=12,
                num_attention_heads=3,
                axes_dims_rope=(2, 4, 2, 4),
                mlp_ratio=2.5,
                rope_theta=500,
                eps=1e-5,
                timestep_guidance_channels=64,
                guidance_embeds=True,  # which klein's pipeline has no use for
            ),
            text=dict(hidden_size=24, head_dim=8, num_hidden_layers=4),
            vae=vae_config(
                (8, 16),
                decoder_block_out_channels=(12, 8),
                latent_channels=8,
                layers_per_block=2,
                norm_num_groups=4,
                use_post_quant_conv=False,
                batch_norm_eps=0.05,
            ),
            scheduler=dict(shift=3.0, use_dynamic_shifting=True, time_shift_type="exponential", **shifts),
            as_tokenizer_json=False,
            cached_run="short",
            options=dict(text_encoder_out_layers=(1, 2, 3)),
            runs=(
                Run("short", "short", None, 1, STEPS, 1.0, 32, 32),
                Run("short_guided", "short", None, 2, STEPS, 4.0, 32, 24),
                Run("long_guided", "long", None, 3, 9, 2.5, 24, 40),
                Run("fifty_steps", "unicode", None, 4, 50, 4.0, 32, 32),
            ),
        ),
    )


def build(model: TinyKlein, folder: Path) -> None:
    """One model folder."""
    torch.manual_seed(model.seed)
    tokens = write_qwen2(folder / "tokenizer", model.as_tokenizer_json)
    encoder = text_encoder(tokens + SPARE_TOKENS, **model.text)
    pipeline = Flux2KleinPipeline(
        tokenizer=Qwen2Tokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=encoder,
        vae=AutoencoderKLFlux2(**model.vae).eval(),
        transformer=Flux2Transformer2DModel(
            joint_attention_dim=3 * model.text["hidden_size"], **model.transformer
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, **model.scheduler),
        is_distilled=model.is_distilled,
    )
    liven(pipeline)
    save(pipeline, folder)


@torch.no_grad()
def liven(pipeline) -> None:
    """Make latents, time and text show in every block and in the velocity, and statistics in the picture."""
    liven_transformer(pipeline.transformer)
    randomise_norms(pipeline.vae)
    pipeline.vae.bn.running_mean.normal_()
    pipeline.vae.bn.running_var.uniform_(0.2, 2)
    pipeline.vae.bn.num_batches_tracked.fill_(123)


@torch.no_grad()
def liven_transformer(transformer) -> None:
    transformer.x_embedder.weight.mul_(2)
    embedders = transformer.time_guidance_embed
    for embedder in (embedders.timestep_embedder, embedders.guidance_embedder):
        if embedder is not None:
            silence_fast_frequencies(embedder)
            embedder.linear_2.weight.mul_(2)
    for name in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"):
        getattr(transformer, name).linear.weight.mul_(4)
    for block in transformer.transformer_blocks:
        for output in (
            block.attn.to_out[0],
            block.attn.to_add_out,
            block.ff.linear_out,
            block.ff_context.linear_out,
        ):
            output.weight.mul_(4)
    for block in transformer.single_transformer_blocks:
        block.attn.to_out.weight.mul_(3)
    transformer.proj_out.weight.mul_(4)
    randomise_norms(transformer)
    for name, weight in transformer.named_parameters():
        if any(norm in name for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")):
            weight.mul_(1.5)  # attention that prefers some tokens


def publish_distilled(folder: Path) -> None:
    """Configs with the keys of the published repository, one that nobody knows, and a VAE in bf16."""
    AutoencoderKLFlux2.from_pretrained(folder / "vae").to(torch.bfloat16).save_pretrained(folder / "vae")
    path = folder / "vae" / "config.json"
    write_json(path, read_json(path) | {"force_upcast": True, "something_new": 1})
    path = folder / "model_index.json"
    index = read_json(path)
    assert index["is_distilled"] is True
    write_json(path, index | {"tokenizer": ["transformers", "Qwen2TokenizerFast"]})


def publish_base(folder: Path) -> None:
    """The transformer in bf16 shards with an index; `is_distilled` is absent, as in the published index."""
    save_in_shards(Flux2Transformer2DModel.from_pretrained(folder / "transformer"), folder / "transformer", "200KB")
    path = folder / "model_index.json"
    index = read_json(path)
    del index["is_distilled"]
    write_json(path, index)


@torch.no_grad()
def expect(pipeline, model: TinyKlein, folder: Path) -> None:
    """Record the goldens of one model."""
    goldens = Goldens(pipeline, folder, **model.options)

    def in_chat(text: str) -> str:
        message = [{"role": "user", "content": text}]
        return pipeline.tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )

    goldens.tokens({"tokenizer": TEXT_TOKENS}, preprocess=in_chat)
    for name, text in PROMPTS.items():
        states, _ = pipeline.encode_prompt(text, **model.options)
        goldens.tensors[f"prompt.{name}.states"] = states[:, RECORDED_ROWS]
    goldens.runs(model.runs, with_image=("short",))
    transformer = pipeline.transformer
    goldens.forward(
        model.runs[0],
        step=7,
        inside={
            "x_embedder": transformer.x_embedder,
            "context_embedder": transformer.context_embedder,
            "time_guidance_embed": transformer.time_guidance_embed,
            "double_stream_modulation_img": transformer.double_stream_modulation_img,
            "single_stream_modulation": transformer.single_stream_modulation,
        },
    )
    goldens.cached(next(run for run in model.runs if run.name == model.cached_run), cached_runs())
    goldens.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="where the folders go")
    out = parser.parse_args().out
    quiet()
    for model, publish in zip(models(), (publish_distilled, publish_base), strict=True):
        folder = out / model.name
        shutil.rmtree(folder, ignore_errors=True)
        build(model, folder / "model")
        publish(folder / "model")
        print(model.name)
        pipeline = Flux2KleinPipeline.from_pretrained(folder / "model", dtype=torch.float32)
        expect(pipeline, model, folder)


if __name__ == "__main__":
    main()
