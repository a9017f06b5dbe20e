"""Tiny HunyuanDiT models in diffusers' layout, and what HunyuanDiTPipeline makes of them.

    python tests/reference/hunyuan_goldens.py [--out tests/fixtures]

Writes `hunyuan-1.2/` and `hunyuan-1.1/`: the model under `model/`, and beside it `golden.json`,
`golden.safetensors` and one PNG per run. `tests/reference/README.md` lists every key.

All weights are random. HunyuanDiT predicts a velocity, so that what a net knows nothing about stays bounded.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
from text_to_image import (
    PROMPTS,
    ROOT,
    STEPS,
    CachedRun,
    DBCacheConfig,
    Goldens,
    Run,
    quiet,
    randomise_norms,
    save,
    save_in_shards,
    silence_fast_frequencies,
    steps_mask,
    t5_encoder,
)
from tiny_dit_goldens import db_cache, taylor
from tiny_models import read_json, vae_config, write_json
from tiny_tokenizers import bert_vocabulary, train_t5, write_bert, write_t5
from transformers import BertConfig, BertModel, BertTokenizer, T5Tokenizer

PIECES, TOKENS = 320, 448
"""Pieces of the T5 tokenizer, and rows of its embedding."""
BERT_TOKENS, T5_TOKENS = 77, 256
"""Of every prompt, fixed in the pipeline."""

PROMPTS["chinese"] = "一只红色的狐狸 in a café, 水彩画 (2045)"
SHORT = Run("short", "short", "empty", 1, STEPS, 5.0, 64, 64)
RUNS = (
    SHORT,
    Run("short_negative", "short", "negative", 2, 50, 5.0, 64, 96),
    Run("long", "long", "empty", 3, STEPS, 5.0, 96, 64),
    Run("long_negative", "long", "negative", 4, STEPS, 2.0, 64, 64),
    Run("chinese", "chinese", "empty", 6, STEPS, 5.0, 64, 64),
    Run("unguided", "short", "negative", 5, 9, 1.0, 64, 64),
)
DDIM = Run("ddim", "short", "negative", 7, STEPS, 5.0, 64, 64)


def build_12(folder: Path) -> None:
    """HunyuanDiT 1.2: no conditions on style and size. The tokenizer of mT5 is `spiece.model` without sentinels."""
    torch.manual_seed(0)
    write_bert(folder / "tokenizer", bert_vocabulary())
    write_t5(folder / "tokenizer_2", train_t5(PIECES), as_tokenizer_json=False)
    publish_as_mt5(folder / "tokenizer_2")
    transformer = HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=32,
        num_layers=8,
        mlp_ratio=4.3637,
        cross_attention_dim=24,
        cross_attention_dim_t5=16,
        pooled_projection_dim=20,
        use_style_cond_and_image_meta_size=False,
    )
    pipeline = assemble(
        folder, transformer, t5_encoder(TOKENS, width=16, heads=2, head_dim=8, feed_forward=40, layers=2), 0.018
    )
    save(pipeline, folder)
    drop_keys(folder / "transformer" / "config.json", ())


def build_11(folder: Path) -> None:
    """HunyuanDiT 1.1: style and size are conditions, which its configuration does not mention; other shapes,
    and transformer and T5 in bf16 shards."""
    torch.manual_seed(1)
    write_bert(folder / "tokenizer", bert_vocabulary())
    write_t5(folder / "tokenizer_2", train_t5(PIECES), as_tokenizer_json=True)
    (folder / "tokenizer_2" / "spiece.model").unlink()
    transformer = HunyuanDiT2DModel(
        num_attention_heads=3,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=24,
        num_layers=6,
        mlp_ratio=4.3637,
        cross_attention_dim=24,
        cross_attention_dim_t5=24,
        pooled_projection_dim=12,
    )
    pipeline = assemble(
        folder, transformer, t5_encoder(TOKENS, width=24, heads=3, head_dim=16, feed_forward=40, layers=3), 0.03
    )
    save(pipeline, folder)
    weights = folder / "transformer"
    save_in_shards(pipeline.transformer, weights, "200KB")
    save_in_shards(pipeline.text_encoder_2, folder / "text_encoder_2", "40KB")
    drop_keys(weights / "config.json", ("use_style_cond_and_image_meta_size",))


def assemble(folder: Path, transformer, text_encoder_2, beta_end: float) -> HunyuanDiTPipeline:
    """The pipeline of these, as published but for sizes."""
    config = BertConfig(
        vocab_size=len(bert_vocabulary()) + 8,
        hidden_size=transformer.config.cross_attention_dim,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=BERT_TOKENS,
    )
    pipeline = HunyuanDiTPipeline(
        tokenizer=BertTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=BertModel(config).eval(),
        tokenizer_2=T5Tokenizer.from_pretrained(folder / "tokenizer_2"),
        text_encoder_2=text_encoder_2,
        vae=AutoencoderKL(**vae_config((8, 8, 16, 16), latent_channels=4, norm_num_groups=4, scaling_factor=0.13025)),
        transformer=transformer.eval(),
        scheduler=DDPMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=beta_end,
            prediction_type="v_prediction",
            steps_offset=1,
            clip_sample=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    liven(pipeline)
    return pipeline


@torch.no_grad()
def liven(pipeline) -> None:
    """Make latents, time and text show in every block, and move norms off ones and zeros."""
    randomise_norms(pipeline.vae)
    randomise_norms(pipeline.text_encoder)
    for module in pipeline.text_encoder.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight.mul_(25)  # they begin at 0.02, too small to show beside the layers
        if isinstance(module, torch.nn.Linear):
            module.weight.mul_(5)
            module.bias.normal_(std=0.1)
    transformer = pipeline.transformer
    randomise_norms(transformer)
    transformer.pos_embed.proj.weight.mul_(6)
    silence_fast_frequencies(transformer.time_extra_emb.timestep_embedder)
    transformer.time_extra_emb.timestep_embedder.linear_2.weight.mul_(2)
    transformer.time_extra_emb.extra_embedder.linear_2.weight.mul_(2)
    for block in transformer.blocks:
        block.norm1.linear.weight.mul_(2)
        block.attn2.to_v.weight.mul_(1.6)
        block.attn2.to_out[0].weight.mul_(1.6)


def publish_as_mt5(folder: Path) -> None:
    """The files of mT5's tokenizer: no sentinels, and no lists of tokens beside the configuration."""
    for file in ("added_tokens.json", "special_tokens_map.json"):
        (folder / file).unlink()
    config = read_json(folder / "tokenizer_config.json")
    del config["added_tokens_decoder"]
    config |= {"additional_special_tokens": None, "extra_ids": 0, "model_max_length": 10**30}
    write_json(folder / "tokenizer_config.json", config)


def drop_keys(path: Path, keys: tuple[str, ...]) -> None:
    """As published: without these keys, and with one that no class knows."""
    config = {key: value for key, value in read_json(path).items() if key not in keys}
    write_json(path, config | {"_diffusers_version": "0.29.0.dev0", "norm_num_groups": None})


def hunyuan_caches(layers: int) -> list[CachedRun]:
    """Every kind of decision, with tail blocks whose skips cache-dit keeps right: as many as head blocks, or more where
    all that leave skips are head blocks. Fresh noise in every step makes distances large."""

    def cache(threshold: float, head: int = 1, tail: int = 0, **options) -> DBCacheConfig:
        blocks = dict(Fn_compute_blocks=head, Bn_compute_blocks=tail)
        return db_cache(residual_diff_threshold=threshold, **blocks, **options)

    def masked(policy: str, mask: str) -> dict:
        mask_of_steps = steps_mask(total_steps=STEPS, mask_policy=mask)
        return dict(steps_computation_mask=mask_of_steps, steps_computation_policy=policy)

    most_three = dict(max_continuous_cached_steps=3)
    skips = layers // 2 - 1
    return [
        CachedRun("F1B0_R0.2", cache(0.2)),
        CachedRun("F1B0_R0.35", cache(0.35)),
        CachedRun("F1B0_R0.8_MC3", cache(0.8, **most_three)),
        CachedRun("F4B0_R0.5", cache(0.5, head=4)),
        CachedRun("F1B1_R0.35", cache(0.35, tail=1)),
        CachedRun("F2B2_R0.8_MC3", cache(0.8, head=2, tail=2, **most_three)),
        CachedRun("F2B2_R0.5_Taylor1", cache(0.5, head=2, tail=2), taylor(1)),
        CachedRun("all_skips_R0.5", cache(0.5, head=skips, tail=skips + 1)),
        CachedRun("Taylor1_R0.5", cache(0.5), taylor(1)),
        CachedRun("Taylor2_R0.8_MC3", cache(0.8, **most_three), taylor(2)),
        CachedRun("SCM_medium_dynamic_R0.5", cache(0.5, **masked("dynamic", "medium"))),
        CachedRun("SCM_fast_static_Taylor1", cache(0.12, **masked("static", "fast")), taylor(1)),
        CachedRun("W2_max_cached_5", cache(0.8, max_warmup_steps=2, max_cached_steps=5)),
    ]


@torch.no_grad()
def expect(pipeline, folder: Path) -> None:
    """Record the goldens of one model."""
    goldens = Goldens(pipeline, folder, use_resolution_binning=False)
    goldens.tokens({"tokenizer": BERT_TOKENS, "tokenizer_2": T5_TOKENS})
    for name, text in PROMPTS.items():
        for index, encoder in enumerate(("bert", "t5")):
            length = (BERT_TOKENS, T5_TOKENS)[index]
            states, _, mask, _ = pipeline.encode_prompt(
                text, do_classifier_free_guidance=False, max_sequence_length=length, text_encoder_index=index
            )
            goldens.tensors[f"prompt.{name}.{encoder}"] = states
            goldens.tensors[f"prompt.{name}.{encoder}_mask"] = mask.to(torch.float32)
    goldens.runs(RUNS, with_image=("short",))
    transformer = pipeline.transformer
    goldens.forward(
        SHORT,
        step=7,
        inside={
            "pos_embed": transformer.pos_embed,
            "time_extra_emb": transformer.time_extra_emb,
            "pooler": transformer.time_extra_emb.pooler,
            "text_embedder": transformer.text_embedder,
            "block.0": transformer.blocks[0],
            f"block.{len(transformer.blocks) - 1}": transformer.blocks[-1],
        },
    )
    goldens.cached(SHORT, hunyuan_caches(transformer.config.num_layers))
    check_two_at_once(goldens)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    goldens.runs((DDIM,), with_image=())
    goldens.json["runs"][-1]["scheduler"] = "DDIMScheduler"
    goldens.write()


def check_two_at_once(goldens: Goldens) -> None:
    """Pictures of one call have generators of their own, whose noise goes on through all steps."""
    arguments = SHORT.arguments() | {
        "num_images_per_prompt": 2,
        "generator": [torch.Generator("cpu").manual_seed(SHORT.seed + index) for index in range(2)],
    }
    latents = goldens.pipeline(**arguments, **goldens.always, output_type="latent").images
    assert torch.allclose(latents[:1], goldens.tensors["short.latents"], atol=1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="where the folders go")
    out = parser.parse_args().out
    quiet()
    for name, build in (("hunyuan-1.2", build_12), ("hunyuan-1.1", build_11)):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        build(folder / "model")
        print(name)
        pipeline = HunyuanDiTPipeline.from_pretrained(folder / "model", dtype=torch.float32)
        expect(pipeline, folder)


if __name__ == "__main__":
    main()
