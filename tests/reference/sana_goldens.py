"""Tiny Sana models in diffusers' layout, and what SanaPipeline and SanaSprintPipeline make of them.

    python tests/reference/sana_goldens.py [--out tests/fixtures] [NAME ..]

Writes `sana/`, `sana-1.5/` and `sana-sprint/`: the model under `model/`, and beside it `golden.json`,
`golden.safetensors` and one PNG per run. `tests/reference/README.md` lists every key. `prompt.NAME.states` are what the
text encoder gives of a prompt behind the instruction, `prompt.NAME.plain` without it, both without padding; a prompt's
`instructed_ids` in `golden.json` are the ids of instruction and prompt. The latents of Sana-Sprint are divided by the
scheduler's `sigma_data`, as the pipeline does at its end.
"""

import argparse
import inspect
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
)
from text_to_image import (
    PROMPTS,
    ROOT,
    STEPS,
    CachedRun,
    Goldens,
    Run,
    cached_runs,
    quiet,
    randomise_norms,
    save,
    silence_fast_frequencies,
)
from tiny_dit_goldens import db_cache, taylor
from tiny_models import read_json, write_json
from tiny_tokenizers import captions, write_gemma
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

MAX_LENGTH = 300
PROMPTS["medium"] = " ".join(captions()[40:43])
PROMPTS["unicode"] = "  \u0130stanbul, \u6f22\u5b57 and \U0001f98a <bos> cafe\u0301\t"


def text_encoder(tokens: int, **more) -> Gemma2Model:
    """Gemma 2 with shared keys, soft caps and random norms."""
    config = Gemma2Config(
        vocab_size=tokens,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=2,
        query_pre_attn_scalar=9,
        attn_logit_softcapping=3.0,
        **more,
    )
    encoder = Gemma2Model(config).eval()
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
            else:
                weight.normal_(std=1.0 if "embed_tokens" in name else 0.25)
    return encoder


def autoencoder(
    channels: tuple[int, ...], layers: tuple[int, ...], scales: tuple, latents: int, **more
) -> AutoencoderDC:
    """A VAE whose coarser stages attend."""
    types = tuple("EfficientViTBlock" if scale else "ResBlock" for scale in scales)
    return AutoencoderDC(
        latent_channels=latents,
        encoder_block_types=types,
        decoder_block_types=types,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=(1,) * len(channels),
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        downsample_block_type="Conv",
        **more,
    )


def flow_solver(shift: float, **more) -> DPMSolverMultistepScheduler:
    """As published: order 2 on flow sigmas."""
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=2, **more
    )


def build(folder: Path, seed: int, pipeline_class, transformer: dict, encoder: dict, vae: dict, scheduler) -> None:
    torch.manual_seed(seed)
    tokens = write_gemma(folder / "tokenizer")
    width = transformer["num_attention_heads"] * transformer["attention_head_dim"]
    pipeline = pipeline_class(
        tokenizer=GemmaTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=text_encoder(tokens, **encoder),
        vae=autoencoder(**vae),
        transformer=SanaTransformer2DModel(
            caption_channels=encoder["hidden_size"], cross_attention_dim=width, **transformer
        ).eval(),
        scheduler=scheduler,
    )
    liven(pipeline)
    save(pipeline, folder)
    (folder / "text_encoder" / "generation_config.json").unlink(missing_ok=True)


@torch.no_grad()
def liven(pipeline) -> None:
    """Make latents, time, guidance and text show in every block, and move all norms and biases off ones and zeros."""
    transformer = pipeline.transformer
    transformer.patch_embed.proj.weight.mul_(2)
    time = transformer.time_embed
    embedder = time.timestep_embedder if hasattr(time, "timestep_embedder") else time.emb.timestep_embedder
    silence_fast_frequencies(embedder)
    embedder.linear_2.weight.mul_(2)
    if hasattr(time, "guidance_embedder"):
        time.guidance_embedder.linear_2.weight.mul_(2)
    time.linear.weight.mul_(2)
    for block in transformer.transformer_blocks:
        block.attn2.to_q.weight.mul_(2)
        block.attn2.to_k.weight.mul_(2)
        block.attn2.to_v.weight.mul_(1.6)
        block.attn2.to_out[0].weight.mul_(1.6)
        block.ff.conv_depth.weight.mul_(2)
        block.ff.conv_point.weight.mul_(3)
    transformer.proj_out.weight.mul_(1.5)
    randomise_norms(transformer)
    randomise_norms(pipeline.vae)


def publish_base(folder: Path) -> None:
    """A key that nobody knows, none of those that came later, and infinities as diffusers writes them."""
    path = folder / "transformer" / "config.json"
    config = read_json(path) | {"something_new": True}
    for key in ("guidance_embeds", "guidance_embeds_scale", "qk_norm", "timestep_scale"):
        del config[key]
    write_json(path, config)
    assert "-Infinity" in (folder / "scheduler" / "scheduler_config.json").read_text()


def publish_bf16(folder: Path) -> None:
    """The transformer in bf16 shards with an index."""
    transformer = SanaTransformer2DModel.from_pretrained(folder / "transformer").to(torch.bfloat16)
    shutil.rmtree(folder / "transformer")
    transformer.save_pretrained(folder / "transformer", max_shard_size="100KB")


@torch.no_grad()
def record_prompts(goldens: Goldens) -> None:
    """Ids and states of all prompts, with the instruction and without."""
    pipeline = goldens.pipeline
    pipeline.tokenizer.padding_side = "right"
    goldens.tokens({"tokenizer": MAX_LENGTH}, preprocess=lambda text: text.lower().strip())
    lines = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    instruction = "\n".join(lines)
    most = len(pipeline.tokenizer.encode(instruction)) + MAX_LENGTH - 2
    for prompt in goldens.json["prompts"]:
        text = prompt["text"].lower().strip()
        encoded = pipeline.tokenizer(instruction + text, max_length=most, truncation=True)
        prompt["instructed_ids"] = encoded.input_ids
        for name, lines_used in (("states", lines), ("plain", None)):
            guided = [False] if isinstance(pipeline, SanaPipeline) else []
            states, mask, *_ = pipeline.encode_prompt(prompt["text"], *guided, complex_human_instruction=lines_used)
            words = int(mask.sum())
            assert mask[0, :words].all()
            goldens.tensors[f"prompt.{prompt['name']}.{name}"] = states[:, :words]
    print(len(instruction), "characters of instruction,", most, "tokens at most")


@torch.no_grad()
def expect(pipeline, folder: Path, runs: tuple[Run, ...], cached: str, studies: list[CachedRun]) -> None:
    """Record the goldens of one model."""
    goldens = Goldens(pipeline, folder, use_resolution_binning=False)
    record_prompts(goldens)
    goldens.runs(runs, with_image=("short",))
    transformer = pipeline.transformer
    run = next(run for run in runs if run.name == cached)
    goldens.forward(
        run,
        step=7,
        inside={
            "caption_norm": transformer.caption_norm,
            "block.0": transformer.transformer_blocks[0],
            f"block.{len(transformer.transformer_blocks) - 1}": transformer.transformer_blocks[-1],
        },
    )
    goldens.cached(run, studies)
    unit = getattr(pipeline.scheduler.config, "sigma_data", 1.0)
    for name in goldens.tensors:
        if name.endswith((".noise", ".latents", ".steps")):
            goldens.tensors[name] = goldens.tensors[name] / unit
    goldens.write()


def sprint_studies() -> list[CachedRun]:
    """Every step of the consistency sampler has new noise, so that neighbours differ more than elsewhere."""
    base = [study for study in cached_runs() if "R0.24" not in study.name]
    loose = [
        CachedRun(f"F1B0_R{threshold}", db_cache(residual_diff_threshold=threshold)) for threshold in (0.4, 0.6, 0.8)
    ]
    return [
        *base,
        *loose,
        CachedRun("F2B1_R0.6", db_cache(Fn_compute_blocks=2, Bn_compute_blocks=1, residual_diff_threshold=0.6)),
        CachedRun("Taylor1_R0.6", db_cache(residual_diff_threshold=0.6), taylor(1)),
    ]


def models() -> tuple:
    by_steps = {"intermediate_timesteps": None}
    return (
        (
            "sana",
            SanaPipeline,
            dict(
                seed=0,
                transformer=dict(
                    in_channels=4,
                    out_channels=4,
                    num_attention_heads=3,
                    attention_head_dim=8,
                    num_layers=8,
                    num_cross_attention_heads=2,
                    cross_attention_head_dim=10,
                    sample_size=16,
                    patch_size=1,
                    mlp_ratio=2.3,
                    attention_bias=True,
                    norm_elementwise_affine=True,
                    interpolation_scale=2.0,
                ),
                encoder=dict(hidden_size=32, head_dim=12, num_hidden_layers=2),
                vae=dict(
                    channels=(4, 8, 16, 16),
                    layers=(2, 1, 1, 2),
                    scales=((), (), (5,), (5,)),
                    latents=4,
                    attention_head_dim=4,
                    upsample_block_type="interpolate",
                    scaling_factor=0.41407,
                ),
                scheduler=flow_solver(3.0),
            ),
            publish_base,
            (
                Run("short", "short", "empty", 1, STEPS, 4.5, 64, 64),
                Run("short_negative", "unicode", "negative", 2, STEPS, 4.5, 64, 96),
                Run("long", "long", "empty", 3, 9, 4.5, 96, 64),
                Run("long_negative", "medium", "long", 4, 30, 2.0, 64, 64),
                Run("unguided", "empty", "negative", 5, 2, 1.0, 64, 64),
                Run("one_step", "medium", "empty", 6, 1, 3.0, 64, 64),
            ),
            "short",
            cached_runs(),
        ),
        (
            "sana-1.5",
            SanaPipeline,
            dict(
                seed=1,
                transformer=dict(
                    in_channels=6,
                    out_channels=12,
                    num_attention_heads=4,
                    attention_head_dim=8,
                    num_layers=6,
                    num_cross_attention_heads=2,
                    cross_attention_head_dim=16,
                    sample_size=32,
                    patch_size=2,
                    qk_norm="rms_norm_across_heads",
                    norm_eps=1e-5,
                    timestep_scale=0.7,
                ),
                encoder=dict(hidden_size=24, head_dim=8, num_hidden_layers=3),
                vae=dict(
                    channels=(8, 8, 16),
                    layers=(0, 2, 1),
                    scales=((), (3, 5), (5,)),
                    latents=6,
                    attention_head_dim=3,
                    upsample_block_type="pixel_shuffle",
                    decoder_in_shortcut=False,
                    decoder_act_fns=("silu", "gelu", "relu"),
                    decoder_conv_act_fn="silu",
                    scaling_factor=0.7,
                ),
                scheduler=flow_solver(6.0, solver_type="heun"),
            ),
            publish_bf16,
            (
                Run("short_negative", "short", "negative", 2, STEPS, 3.0, 64, 96),
                Run("short", "short", "empty", 1, STEPS, 4.5, 64, 64),
                Run("long", "long", "empty", 3, 14, 4.5, 96, 64),
                Run("unguided", "unicode", "empty", 4, STEPS, 1.0, 64, 64),
            ),
            "short_negative",
            cached_runs(),
        ),
        (
            "sana-sprint",
            SanaSprintPipeline,
            dict(
                seed=2,
                transformer=dict(
                    in_channels=8,
                    out_channels=8,
                    num_attention_heads=2,
                    attention_head_dim=16,
                    num_layers=7,
                    num_cross_attention_heads=4,
                    cross_attention_head_dim=8,
                    sample_size=32,
                    patch_size=1,
                    qk_norm="rms_norm_across_heads",
                    guidance_embeds=True,
                    guidance_embeds_scale=0.1,
                ),
                encoder=dict(hidden_size=24, head_dim=8, num_hidden_layers=2),
                vae=dict(
                    channels=(4, 4, 8, 8, 16, 32),
                    layers=(1, 1, 1, 1, 1, 1),
                    scales=((), (), (), (), (), (5,)),
                    latents=8,
                    attention_head_dim=24,
                    upsample_block_type="interpolate",
                    scaling_factor=0.41407,
                ),
                scheduler=SCMScheduler(prediction_type="trigflow", sigma_data=0.5),
            ),
            None,
            (
                Run("twenty_steps", "medium", None, 4, STEPS, 7.0, 160, 128, by_steps),
                Run("short", "short", None, 1, 2, 4.5, 128, 160),
                Run("four_steps", "long", None, 2, 4, 2.0, 160, 128, by_steps),
                Run("one_step", "unicode", None, 3, 1, 4.5, 128, 160, by_steps),
                Run("empty", "empty", None, 5, 2, 1.0, 128, 160),
            ),
            "twenty_steps",
            sprint_studies(),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="where the folders go")
    parser.add_argument("names", nargs="*", help="which ones; all without any")
    arguments = parser.parse_args()
    quiet()
    for name, pipeline_class, parts, publish, runs, cached, studies in models():
        if arguments.names and name not in arguments.names:
            continue
        folder = arguments.out / name
        shutil.rmtree(folder, ignore_errors=True)
        build(folder / "model", pipeline_class=pipeline_class, **parts)
        if publish:
            publish(folder / "model")
        print(name)
        pipeline = pipeline_class.from_pretrained(folder / "model", dtype=torch.float32)
        expect(pipeline, folder, runs, cached, studies)


if __name__ == "__main__":
    main()
