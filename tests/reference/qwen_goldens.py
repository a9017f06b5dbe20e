"""Tiny Qwen-Image models in diffusers' layout, and what QwenImagePipeline makes of them.

    python tests/reference/qwen_goldens.py [--out tests/fixtures]

Writes `qwen-image/` (levels shifted by the number of image tokens and stretched to a last one, as published) and
`qwen-image-wide/` (three levels in the VAE, linear shift, a tokenizer in which the template is longer than what is
dropped of it; transformer and text encoder in bf16 shards, as published): the model under `model/`, and beside it
`golden.json`, `golden.safetensors` and one PNG per run. `tests/reference/README.md` lists every key.

The weights are random. The model predicts a velocity, so its trajectories are bounded without training.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from cache_dit import DBCacheConfig
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
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
    save_in_shards,
    silence_fast_frequencies,
)
from tiny_models import read_json, write_json
from tiny_tokenizers import write_qwen2
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

TEXT_TOKENS = 512
DROPPED = 34
"""Tokens of the template before the prompt in the published tokenizer, which are cut off whatever they are."""
SPARE_TOKENS = 8
"""Rows of the table of tokens that no token has, as in the published model."""
UNICODE = "Ein rotes Häuschen 🏠 mit dem Schild “你好，世界” — cafe\u0301, 3.14!"


@dataclass(frozen=True)
class TinyQwen:
    """One folder: what differs between the two."""

    name: str
    seed: int
    transformer: dict
    text: dict
    vae: dict
    scheduler: dict
    merges: int
    knows_template: bool
    as_tokenizer_json: bool
    in_shards: bool
    cached_run: str
    runs: tuple[Run, ...]


def models() -> tuple[TinyQwen, ...]:
    def guided(scale: float, **more) -> dict:
        return {"true_cfg_scale": scale} | more

    return (
        TinyQwen(
            name="qwen-image",
            seed=0,
            transformer=dict(
                num_layers=6,
                in_channels=16,
                out_channels=4,
                attention_head_dim=16,
                num_attention_heads=2,
                axes_dims_rope=(4, 6, 6),
            ),
            text=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4),
            vae=dict(base_dim=8, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1),
            scheduler=dict(
                base_shift=0.5,
                max_shift=0.9,
                base_image_seq_len=256,
                max_image_seq_len=8192,
                shift=1.0,
                shift_terminal=0.02,
                use_dynamic_shifting=True,
                time_shift_type="exponential",
            ),
            merges=420,
            knows_template=True,
            as_tokenizer_json=False,
            in_shards=False,
            cached_run="short",
            runs=(
                Run("short", "short", None, 1, STEPS, None, 64, 64),
                Run("short_true_cfg", "short", " ", 2, STEPS, None, 64, 96, guided(4.0)),
                Run("long", "long", None, 3, STEPS, None, 96, 64),
                Run("long_true_cfg", "long", "negative", 4, 9, None, 64, 64, guided(2.5)),
                Run("unicode_empty_negative", UNICODE, "empty", 5, 9, None, 64, 64, guided(4.0)),
                Run("fifty_steps", "short", "negative", 6, 50, None, 64, 64, guided(4.0)),
                Run("short_text", "long", "negative", 7, 9, None, 64, 64, guided(4.0, max_sequence_length=24)),
            ),
        ),
        TinyQwen(
            name="qwen-image-wide",
            seed=2,
            transformer=dict(
                num_layers=7,
                in_channels=64,
                out_channels=16,
                attention_head_dim=12,
                num_attention_heads=3,
                axes_dims_rope=(2, 4, 6),
            ),
            text=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3),
            vae=dict(base_dim=8, z_dim=16, dim_mult=[1, 2, 2], num_res_blocks=2, temperal_downsample=[True, False]),
            scheduler=dict(
                base_shift=0.5,
                max_shift=0.9,
                base_image_seq_len=16,
                max_image_seq_len=256,
                shift=1.0,
                shift_terminal=False,
                use_dynamic_shifting=True,
                time_shift_type="linear",
            ),
            merges=60,
            knows_template=False,
            as_tokenizer_json=True,
            in_shards=True,
            cached_run="short",
            runs=(
                Run("short", "short", None, 1, STEPS, None, 32, 40),
                Run("short_true_cfg", UNICODE, "negative", 2, STEPS, None, 40, 24, guided(3.0)),
                Run("one_step", "long", " ", 3, 1, None, 32, 40, guided(6.0)),
            ),
        ),
    )


def template() -> str:
    """What the pipeline puts a prompt into."""
    return QwenImagePipeline(None, None, None, None, None).prompt_template_encode


def text_encoder(tokens: int, text: dict) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL with the smallest of vision towers."""
    head_dim = text["hidden_size"] // text["num_attention_heads"]
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=tokens + SPARE_TOKENS,
            num_key_value_heads=1 if text["num_attention_heads"] % 2 else 2,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [head_dim // 2 - 2, 1, 1],
            },
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            **text,
        ),
        vision_config=dict(
            depth=1,
            hidden_size=16,
            intermediate_size=16,
            num_heads=2,
            out_hidden_size=text["hidden_size"],
            patch_size=2,
            fullatt_block_indexes=[0],
        ),
        tie_word_embeddings=False,
    )
    encoder = Qwen2_5_VLForConditionalGeneration(config).eval()
    randomise_norms(encoder)
    with torch.no_grad():
        language = encoder.model.language_model
        language.embed_tokens.weight.mul_(25)  # they begin at 0.02, too small to show beside the layers
        for module in language.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(8)
                if module.bias is not None:
                    module.bias.normal_(std=0.3)
    return encoder


def build(model: TinyQwen, folder: Path) -> None:
    """One model folder."""
    torch.manual_seed(model.seed)
    words = template().replace("<|im_start|>", "\n").replace("<|im_end|>", "\n") if model.knows_template else ""
    tokens = write_qwen2(folder / "tokenizer", model.as_tokenizer_json, model.merges, words)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    before = template().split("{}")[0]
    assert (len(tokenizer(before).input_ids) == DROPPED) == model.knows_template
    channels = model.vae["z_dim"]
    pipeline = QwenImagePipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder(tokens, model.text),
        vae=AutoencoderKLQwenImage(
            latents_mean=torch.randn(channels).tolist(),
            latents_std=(1 + 0.5 * torch.rand(channels)).tolist(),
            **model.vae,
        ),
        transformer=QwenImageTransformer2DModel(
            joint_attention_dim=model.text["hidden_size"], **model.transformer
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, **model.scheduler),
    )
    liven(pipeline)
    save(pipeline, folder)
    if model.in_shards:
        publish_in_shards(pipeline, folder)


def publish_in_shards(pipeline, folder: Path) -> None:
    """As published: transformer and text encoder in bf16 shards with an index, and a key that no class knows."""
    save_in_shards(pipeline.transformer, folder / "transformer", "200KB")
    save_in_shards(pipeline.text_encoder, folder / "text_encoder", "30KB")
    path = folder / "transformer" / "config.json"
    write_json(path, read_json(path) | {"pooled_projection_dim": 768})


@torch.no_grad()
def liven(pipeline) -> None:
    """Make latents, time and text show in every block and in the velocity."""
    transformer = pipeline.transformer
    embedder = transformer.time_text_embed.timestep_embedder
    silence_fast_frequencies(embedder)
    embedder.linear_2.weight.mul_(0.65)
    transformer.txt_in.weight.mul_(2)
    for block in transformer.transformer_blocks:
        for modulation in (block.img_mod[1], block.txt_mod[1]):
            modulation.weight.mul_(3)
        for output in (block.attn.to_out[0], block.img_mlp.net[2]):
            output.weight.mul_(4)
    transformer.proj_out.weight.mul_(4)
    randomise_norms(transformer)
    for name, weight in transformer.named_parameters():
        if any(norm in name for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")):
            weight.mul_(1.5)  # attention that prefers some tokens
    for name, weight in pipeline.vae.named_parameters():
        if name.endswith("gamma"):
            weight.add_(0.2 * torch.randn_like(weight))


@torch.no_grad()
def expect(pipeline, model: TinyQwen, folder: Path) -> None:
    """Record the goldens of one model."""
    goldens = Goldens(pipeline, folder)
    goldens.tokens({"tokenizer": DROPPED + TEXT_TOKENS}, preprocess=pipeline.prompt_template_encode.format)
    for name, text in {**PROMPTS, "unicode": UNICODE}.items():
        states, mask = pipeline.encode_prompt(text, max_sequence_length=TEXT_TOKENS)
        assert mask is None
        goldens.tensors[f"prompt.{name}.states"] = states
    goldens.runs(model.runs, with_image=("short",))
    transformer = pipeline.transformer
    blocks = transformer.transformer_blocks
    goldens.forward(
        model.runs[0],
        step=7,
        inside={
            "img_in": transformer.img_in,
            "txt_in": transformer.txt_in,
            "time_text_embed": transformer.time_text_embed,
            "block.0": blocks[0],
            f"block.{len(blocks) - 1}": blocks[-1],
        },
    )
    masked_forward(pipeline, model.runs[0], goldens)
    goldens.cached(next(run for run in model.runs if run.name == model.cached_run), one_forward(cached_runs()))
    goldens.write()


def masked_forward(pipeline, run: Run, goldens: Goldens) -> None:
    """One forward of two prompts of different lengths, of which the shorter is padded and masked."""
    given = {name.removeprefix("forward."): tensor for name, tensor in goldens.tensors.items() if "forward." in name}
    states, mask = pipeline.encode_prompt([PROMPTS["empty"], UNICODE], max_sequence_length=TEXT_TOKENS)
    assert mask is not None and not mask.all()
    side = 2 * pipeline.vae_scale_factor
    output = pipeline.transformer(
        hidden_states=given["hidden_states"].repeat(2, 1, 1),
        timestep=given["timestep"].repeat(2),
        encoder_hidden_states=states,
        encoder_hidden_states_mask=mask,
        img_shapes=[[(1, run.height // side, run.width // side)]] * 2,
        return_dict=False,
    )[0]
    goldens.tensors["masked.encoder_hidden_states"] = states
    goldens.tensors["masked.encoder_hidden_states_mask"] = mask.float()
    goldens.tensors["masked.output"] = output


def one_forward(studies: list[CachedRun]) -> list[CachedRun]:
    """The caches of a run without guidance, of which cache-dit takes every second forward for another branch."""
    for study in studies:
        config: DBCacheConfig = study.config
        config.enable_separate_cfg = False
    return studies


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
        pipeline = QwenImagePipeline.from_pretrained(folder / "model", dtype=torch.float32)
        expect(pipeline, model, folder)


if __name__ == "__main__":
    main()
