"""Tiny decoders with their tokenizers, and the hidden states that transformers reads from them.

    python tests/reference/decoder_goldens.py [--out tests/fixtures/decoders]

Writes `qwen3/`, `qwen2.5-vl/`, `gemma2/`, `mistral/` and `llama/`: text encoder and tokenizer under `model/`, and
beside it `golden.json` and `golden.safetensors`.

`golden.json` has `texts`, per unusual text `{text, input_ids}`, and `prompts`: `name`, `text` (with its chat template
applied), `max_length` and the `input_ids`, cut to that length and without padding. `golden.safetensors` has
`NAME.states`, all hidden states `[layers + 1, length, hidden]` of the prompt padded to `max_length` at its end,
padding included.

Norms, biases and embeddings are random, heads of keys are shared, heads are not `hidden / heads` wide where the class
lets them be, and windows are shorter than the prompts.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from text_to_image import PROMPTS, ROOT, quiet
from tiny_tokenizers import UNUSUAL_TEXTS, write_gemma, write_json, write_qwen2
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

MAX_LENGTH = 96
SIZES = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)


def qwen3(folder: Path):
    """As Z-Image and FLUX.2 klein store it: a causal model whose class is said to be `Qwen3Model`."""
    tokens = write_qwen2(folder / "tokenizer", as_tokenizer_json=True)
    config = Qwen3Config(
        **SIZES, vocab_size=tokens + 8, num_hidden_layers=4, head_dim=12, rope_parameters={"rope_theta": 1e6}
    )
    return "Qwen3Model", Qwen3ForCausalLM(config)


def qwen2_5_vl(folder: Path):
    """As Qwen-Image stores it: with the half that sees; `vocab.json` and `merges.txt`; old names and config."""
    tokens = write_qwen2(folder / "tokenizer", as_tokenizer_json=False)
    text = dict(**SIZES, vocab_size=tokens + 3, num_hidden_layers=3, rms_norm_eps=1e-6)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    vision = dict(depth=1, hidden_size=16, num_heads=2, intermediate_size=16, out_hidden_size=32)
    return "Qwen2_5_VLForConditionalGeneration", Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    )


def gemma2(folder: Path):
    """As Sana stores it; the window is shorter than the prompts, the cap lower than some scores."""
    tokens = write_gemma(folder / "tokenizer")
    config = Gemma2Config(
        **SIZES,
        vocab_size=tokens,
        num_hidden_layers=4,
        head_dim=16,
        query_pre_attn_scalar=9,
        sliding_window=7,
        attn_logit_softcapping=2.0,
    )
    return "Gemma2Model", Gemma2Model(config)


def mistral(folder: Path):
    """As FLUX.2 stores it, with Qwen's tokenizer."""
    tokens = write_qwen2(folder / "tokenizer", as_tokenizer_json=False)
    text = dict(
        model_type="mistral",
        **SIZES,
        vocab_size=tokens,
        num_hidden_layers=3,
        head_dim=10,
        rms_norm_eps=1e-5,
        rope_theta=1e9,
        sliding_window=None,
    )
    vision = dict(model_type="pixtral", hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    vision |= dict(num_attention_heads=2, head_dim=8, image_size=28, patch_size=14)
    config = Mistral3Config(text_config=text, vision_config=vision)
    return "Mistral3ForConditionalGeneration", Mistral3ForConditionalGeneration(config)


def llama(folder: Path):
    """Biases everywhere, with Qwen's tokenizer."""
    tokens = write_qwen2(folder / "tokenizer", as_tokenizer_json=False)
    config = LlamaConfig(
        **SIZES, vocab_size=tokens, num_hidden_layers=2, attention_bias=True, mlp_bias=True, rope_theta=500.0
    )
    return "LlamaModel", LlamaModel(config)


@torch.no_grad()
def liven(model: torch.nn.Module) -> None:
    """Make everything random, and scores large enough to matter."""
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.add_(0.3 * torch.randn_like(parameter))
        elif name.endswith("bias"):
            parameter.normal_(std=0.2)
        else:
            parameter.normal_(std=1.0 if "embed_tokens" in name else 0.25)


def publish_old_names(folder: Path) -> None:
    """Names and config of Qwen2.5-VL as published in 2025: `visual.*`, `model.layers.*`, one flat config."""
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    renamed = {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, weights, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    text.pop("layer_types", None)
    write_json(folder / "config.json", text | config | {"model_type": "qwen2_5_vl"})


@torch.no_grad()
def expect(model, tokenizer, template: bool) -> tuple[dict, dict[str, torch.Tensor]]:
    """What transformers makes of texts, and of prompts padded at their end."""
    golden = {
        "texts": [{"text": text, "input_ids": tokenizer(text).input_ids} for text in UNUSUAL_TEXTS],
        "prompts": [],
    }
    tensors: dict[str, torch.Tensor] = {}
    for name, text in (*PROMPTS.items(), ("unicode", UNUSUAL_TEXTS[-1] + " <think> 漢字 <|im_end|> é e\u0301")):
        if template:
            message = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(
            text,
            padding="max_length",
            max_length=MAX_LENGTH,
            truncation=True,
            padding_side="right",
            return_tensors="pt",
        )
        length = int(encoded.attention_mask.sum())
        entry = {"name": name, "text": text, "max_length": MAX_LENGTH}
        golden["prompts"].append(entry | {"input_ids": encoded.input_ids[0, :length].tolist()})
        output = model(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, output_hidden_states=True)
        tensors[f"{name}.states"] = torch.cat(output.hidden_states)
    return golden, tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures/decoders", help="where the folders go")
    out = parser.parse_args().out
    quiet()
    shutil.rmtree(out, ignore_errors=True)
    for seed, (name, build) in enumerate(
        {"qwen3": qwen3, "qwen2.5-vl": qwen2_5_vl, "gemma2": gemma2, "mistral": mistral, "llama": llama}.items()
    ):
        torch.manual_seed(seed)
        folder = out / name / "model"
        class_name, model = build(folder)
        model = model.eval()
        liven(model)
        model.save_pretrained(folder / "text_encoder")
        (folder / "text_encoder" / "generation_config.json").unlink(missing_ok=True)
        if name == "qwen2.5-vl":
            publish_old_names(folder / "text_encoder")
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        model = type(model).from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
        golden, tensors = expect(model, tokenizer, template=name != "gemma2")
        write_json(
            folder / "model_index.json",
            {
                "_class_name": "Unnamed",
                "text_encoder": ["transformers", class_name],
                "tokenizer": ["transformers", type(tokenizer).__name__],
            },
        )
        write_json(out / name / "golden.json", golden)
        save_file(tensors, out / name / "golden.safetensors")
        print(name, {name: tuple(states.shape) for name, states in tensors.items()}, flush=True)


if __name__ == "__main__":
    main()
