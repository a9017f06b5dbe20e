"""Tiny Z-Image models in diffusers' layout, and what ZImagePipeline makes of them.

    python tests/reference/z_image_goldens.py [--out tests/fixtures]

Writes `z-image-turbo/` and `z-image/`: the model under `model/`, and beside it `golden.json`, `golden.safetensors` and
one PNG per run. `tests/reference/README.md` lists every key. `prompt.NAME.states` are what the text encoder gives of a
prompt, without padding; `forward.captions.ROW` are those of a row.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from text_to_image import PROMPTS, ROOT, STEPS, Goldens, Run, cached_runs, quiet, randomise_norms, save
from tiny_models import keep_keys, read_json, vae_config, write_json
from tiny_tokenizers import captions, write_qwen2
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

MAX_LENGTH = 512
PROMPTS["medium"] = " ".join(captions()[40:43])
PROMPTS["unicode"] = "İstanbul, 漢字 and 🦊 <think> cafe\u0301 <|im_end|>"


def text_encoder(tokens: int, **more) -> Qwen3ForCausalLM:
    """Qwen3 with heads of its own width and shared keys."""
    config = Qwen3Config(
        vocab_size=tokens,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_theta": 1e6},
        tie_word_embeddings=True,
        **more,
    )
    encoder = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
            else:
                weight.normal_(std=1.0 if "embed_tokens" in name else 0.25)
    return encoder


def build(folder: Path, seed: int, transformer: dict, encoder: dict, vae: dict, shift: float) -> None:
    torch.manual_seed(seed)
    tokens = write_qwen2(folder / "tokenizer", as_tokenizer_json=True)
    causal = text_encoder(tokens, **encoder)
    pipeline = ZImagePipeline(
        tokenizer=Qwen2Tokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=causal.model,
        vae=AutoencoderKL(
            **vae, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
        ),
        transformer=ZImageTransformer2DModel(cap_feat_dim=encoder["hidden_size"], **transformer).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift, use_dynamic_shifting=False),
    )
    liven(pipeline)
    save(pipeline, folder)
    # The repositories hold the causal model, whose names begin with `model.`, and call it `Qwen3Model`.
    causal.save_pretrained(folder / "text_encoder")
    (folder / "text_encoder" / "generation_config.json").unlink(missing_ok=True)


@torch.no_grad()
def liven(pipeline) -> None:
    """Make latents, time, text and padding show in every block, and move all norms off ones."""
    transformer = pipeline.transformer
    transformer.x_pad_token.normal_()
    transformer.cap_pad_token.normal_()
    transformer.all_x_embedder["2-1"].weight.mul_(2)
    frequencies = transformer.t_embedder.mlp[0].weight
    frequencies[:, :64] = 0  # the faster half of cosines and sines, so that the embedding is smooth in time
    frequencies[:, 128:192] = 0
    for block in (*transformer.noise_refiner, *transformer.layers):
        block.adaLN_modulation[0].weight.mul_(6)
    for block in (*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers):
        block.attention.to_q.weight.mul_(2)
        block.attention.to_k.weight.mul_(2)
    transformer.all_final_layer["2-1"].linear.weight.mul_(2)
    randomise_norms(transformer)
    randomise_norms(pipeline.vae)


def publish_turbo(folder: Path) -> None:
    """Configs with the keys of the published repository, and one that nobody knows."""
    path = folder / "transformer" / "config.json"
    write_json(path, read_json(path) | {"siglip_feat_dim": None, "something_new": True})
    keep_keys(
        folder / "scheduler" / "scheduler_config.json",
        "0.36.0.dev0",
        ("num_train_timesteps", "use_dynamic_shifting", "shift"),
    )


def publish_base(folder: Path) -> None:
    """The transformer in bf16 shards with an index."""
    transformer = ZImageTransformer2DModel.from_pretrained(folder / "transformer").to(torch.bfloat16)
    shutil.rmtree(folder / "transformer")
    transformer.save_pretrained(folder / "transformer", max_shard_size="200KB")


@torch.no_grad()
def record_forward(goldens: Goldens, run: Run, step: int) -> None:
    """The transformer's arguments and output in a step: lists of rows, of which the captions differ in length."""
    pipeline, transformer = goldens.pipeline, goldens.pipeline.transformer
    calls: list[dict[str, torch.Tensor]] = []

    def given(module, args, kwargs):
        latents, timestep, texts = args
        calls.append({"latents": torch.stack(latents).squeeze(2), "timestep": timestep.clone()})
        calls[-1] |= {f"captions.{row}": text.clone() for row, text in enumerate(texts)}

    def result(name):
        def hook(module, args, output):
            output = output[0] if isinstance(output, tuple) else output
            calls[-1][name] = (torch.stack(output).squeeze(2) if isinstance(output, list) else output).clone()

        return hook

    inside = {
        "t_embedder": transformer.t_embedder,
        "noise_refiner": transformer.noise_refiner[-1],
        "context_refiner": transformer.context_refiner[-1],
        "block.0": transformer.layers[0],
        "block.last": transformer.layers[-1],
        "output": transformer,
    }
    handles = [module.register_forward_hook(result(name)) for name, module in inside.items()]
    handles.append(transformer.register_forward_pre_hook(given, with_kwargs=True))
    pipeline(**run.arguments(), **goldens.always, output_type="latent")
    for handle in handles:
        handle.remove()
    goldens.tensors |= {f"forward.{name}": tensor for name, tensor in calls[step].items()}
    goldens.json["forward"] = {"run": run.name, "step": step}


@torch.no_grad()
def expect(pipeline, folder: Path, runs: tuple[Run, ...], cached: Run) -> None:
    """Record the goldens of one model."""
    goldens = Goldens(pipeline, folder)

    def in_chat(text: str) -> str:
        message = [{"role": "user", "content": text}]
        return pipeline.tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )

    goldens.tokens({"tokenizer": MAX_LENGTH}, preprocess=in_chat)
    for name, text in PROMPTS.items():
        [states], _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
        goldens.tensors[f"prompt.{name}.states"] = states
        print(name, len(states))
    goldens.runs(runs, with_image=("short",))
    record_forward(goldens, next(run for run in runs if run.name == cached.name), step=7)
    goldens.cached(cached, cached_runs())
    goldens.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="where the folders go")
    out = parser.parse_args().out
    quiet()
    turbo = dict(dim=48, n_layers=6, n_refiner_layers=2, n_heads=3, n_kv_heads=3, axes_dims=[4, 6, 6], in_channels=16)
    base = dict(dim=32, n_layers=7, n_refiner_layers=1, n_heads=2, n_kv_heads=2, axes_dims=[4, 4, 8], in_channels=4)
    models = (
        (
            "z-image-turbo",
            dict(
                seed=0,
                transformer=turbo | dict(axes_lens=[1536, 64, 64]),
                encoder=dict(hidden_size=32, head_dim=12, num_hidden_layers=4),
                vae=vae_config((8, 8, 16, 16), latent_channels=16, norm_num_groups=4),
                shift=3.0,
            ),
            publish_turbo,
            (
                Run("short", "short", "empty", 1, STEPS, 0.0, 64, 64),
                Run("eight_steps", "unicode", "empty", 2, 8, 0.0, 64, 96),
                Run("long", "long", "empty", 3, 8, 0.0, 96, 64),
                Run("guided", "medium", "negative", 4, 9, 1.5, 64, 64),
                Run("one_step", "empty", "empty", 5, 1, 0.0, 64, 64),
            ),
            "short",
        ),
        (
            "z-image",
            dict(
                seed=1,
                transformer=base | dict(axes_lens=[1024, 48, 48], rope_theta=100.0),
                encoder=dict(hidden_size=24, head_dim=8, num_hidden_layers=3),
                vae=vae_config((8, 16, 16), latent_channels=4, norm_num_groups=8),
                shift=6.0,
            ),
            publish_base,
            (
                Run("short", "short", "empty", 1, STEPS, 4.0, 64, 64),
                Run("medium", "medium", "empty", 2, STEPS, 4.0, 64, 64),
                Run("long_negative", "negative", "long", 3, STEPS, 0.5, 64, 88),
                Run("fifty_steps", "unicode", "negative", 4, 50, 5.0, 88, 64),
                Run("unguided", "long", "empty", 5, 9, 0.0, 64, 64),
            ),
            "medium",
        ),
    )
    for name, arguments, publish, runs, cached in models:
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        build(folder / "model", **arguments)
        publish(folder / "model")
        print(name)
        pipeline = ZImagePipeline.from_pretrained(folder / "model", dtype=torch.float32)
        assert isinstance(pipeline.text_encoder, Qwen3Model)
        expect(pipeline, folder, runs, next(run for run in runs if run.name == cached))


if __name__ == "__main__":
    main()
