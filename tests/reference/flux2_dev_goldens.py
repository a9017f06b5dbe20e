"""A tiny FLUX.2-dev in diffusers' layout, and what Flux2Pipeline makes of it.

    python tests/reference/flux2_dev_goldens.py [--out tests/fixtures]

Writes `flux2-dev/`: the model under `model/` (Mistral of 32 layers, of which 10, 20 and 30 are read; texts padded at
their beginning; a transformer that receives the guidance scale), and beside it `golden.json`, `golden.safetensors` and
one PNG per run. `tests/reference/README.md` lists every key. `prompt.NAME.states` are every eighth row of what the text
encoder gives of a prompt, padding included.

The published tokenizer is a `PixtralProcessor`, which needs torchvision and for a text does no more than its tokenizer
and its chat template: here these two stand in for it.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from flux2_goldens import RECORDED_ROWS, SPARE_TOKENS, TEXT_TOKENS, liven
from text_to_image import PROMPTS, ROOT, STEPS, Goldens, Run, cached_runs, quiet
from tiny_models import vae_config, write_json
from tiny_tokenizers import UNUSUAL_TEXTS, write_mistral
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PreTrainedTokenizerFast

NAME = "flux2-dev"
UNICODE = "Ein rotes Häuschen 🏠 “你好，世界” [IMG] cafe\u0301 [/INST] 3.14!"
PROMPTS |= {"unicode": UNICODE}
PROMPTS.pop("medium", None)
TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {%- set name = {'system': 'SYSTEM_PROMPT', 'user': 'INST'}[message['role']] %}
    {{- '[' + name + ']' }}
    {%- for block in message['content'] %}{{- block['text'] }}{%- endfor %}
    {{- '[/' + name + ']' }}
{%- endfor %}"""
"""Mistral Small's, as far as it concerns texts of a system and a user."""
RUNS = (
    Run("short", "short", None, 1, STEPS, 4.0, 64, 64),
    Run("scale_1", "unicode", None, 2, 9, 1.0, 64, 96),
    Run("long", "long", None, 3, 9, 7.5, 96, 64),
    Run("empty", "empty", None, 4, 4, 2.5, 64, 64),
    Run("short_text", "short", None, 5, 4, 4.0, 64, 64, dict(max_sequence_length=96)),
)


class Processor:
    """What `PixtralProcessor` does with texts."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def text(self, messages: list[dict]) -> str:
        return self.tokenizer.apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False)

    def apply_chat_template(self, batch, add_generation_prompt, tokenize, return_dict, **options):
        texts = [self.text(messages) for messages in batch]
        # The template begins with the first special token.
        return self.tokenizer(texts, add_special_tokens=False, **options)

    def __call__(self, text: str, **options):
        return self.tokenizer(text, add_special_tokens=False, **options)


def text_encoder(tokens: int) -> Mistral3ForConditionalGeneration:
    """Mistral with the smallest of vision towers."""
    text = dict(
        model_type="mistral",
        vocab_size=tokens + SPARE_TOKENS,
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        rope_theta=1e9,
        sliding_window=None,
    )
    vision = dict(model_type="pixtral", hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    vision |= dict(num_attention_heads=2, head_dim=8, image_size=28, patch_size=14)
    encoder = Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision)).eval()
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
            else:
                weight.normal_(std=1.0 if "embed_tokens" in name else 0.25)
    return encoder


def build(folder: Path) -> Flux2Pipeline:
    """The model folder, component by component, since the tokenizer is none that diffusers could save."""
    torch.manual_seed(4)
    tokens = write_mistral(folder / "tokenizer")
    transformer = Flux2Transformer2DModel(
        num_layers=6,
        num_single_layers=6,
        in_channels=16,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        axes_dims_rope=(4, 4, 4, 4),
    ).eval()
    vae = vae_config((8, 8, 16, 16), latent_channels=4, layers_per_block=1, norm_num_groups=4)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True)
    pipeline = Flux2Pipeline(
        tokenizer=Processor(PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")),
        text_encoder=text_encoder(tokens),
        vae=AutoencoderKLFlux2(**vae).eval(),
        transformer=transformer,
        scheduler=scheduler,
    )
    liven(pipeline)
    for name in ("text_encoder", "vae", "transformer", "scheduler"):
        getattr(pipeline, name).save_pretrained(folder / name)
    (folder / "text_encoder" / "generation_config.json").unlink(missing_ok=True)
    index = {
        "_class_name": "Flux2Pipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Mistral3ForConditionalGeneration"],
        "tokenizer": ["transformers", "PixtralProcessor"],
        "transformer": ["diffusers", "Flux2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    }
    write_json(folder / "model_index.json", index)
    return pipeline


@torch.no_grad()
def expect(pipeline, folder: Path) -> None:
    """Record the goldens."""
    goldens = Goldens(pipeline, folder)

    def in_chat(text: str) -> str:
        [messages] = format_input([text])
        return pipeline.tokenizer.text(messages)

    goldens.tokens({"tokenizer": TEXT_TOKENS}, preprocess=in_chat)
    assert len(goldens.json["texts"]["tokenizer"]) == len(UNUSUAL_TEXTS)
    for name, text in PROMPTS.items():
        states, _ = pipeline.encode_prompt(text)
        goldens.tensors[f"prompt.{name}.states"] = states[:, RECORDED_ROWS]
    goldens.runs(RUNS, with_image=("short",))
    transformer = pipeline.transformer
    inside = {"context_embedder": transformer.context_embedder, "time_guidance_embed": transformer.time_guidance_embed}
    goldens.forward(RUNS[0], step=7, inside=inside)
    goldens.cached(RUNS[0], cached_runs())
    goldens.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="where the folder goes")
    folder = parser.parse_args().out / NAME
    quiet()
    shutil.rmtree(folder, ignore_errors=True)
    expect(build(folder / "model"), folder)


if __name__ == "__main__":
    main()
