"""Model folders whose configs or tokenizer files say something unusual, and what diffusers makes of them.

    python tests/reference/config_variants.py [--out tests/fixtures/config-variants]

A variant is a committed fixture with some files changed: `variants.json` says which, and holds the token ids that
transformers gives; `variants.safetensors` holds the final latents. The same changes are made by the test, so that
no model is stored a second time. `tests/reference/README.md` lists every key.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from text_to_image import ROOT, quiet, recorded_steps

FIXTURES = ROOT / "tests/fixtures"
STEPS = 4
SEED = 5


@dataclass
class Variant:
    """One changed folder.

    `keys` maps a JSON file to keys that are set in it (`None` is JSON's null), `without_keys` to keys that are taken
    out. `texts` are whole files, `without` files that are removed, `bom` files that get a byte order mark. `rows` is
    how many embeddings CLIP gets behind its last. `renamed` gives tensors of T5 other names, `copied` gives them
    second ones. `tokens` are texts per tokenizer, `decodes` says that the picture is recorded too.
    """

    name: str
    base: str
    keys: dict[str, dict] = field(default_factory=dict)
    without_keys: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)
    rows: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)
    bom: list[str] = field(default_factory=list)
    prompt: str = "A red apple on a wooden table"
    tokens: dict[str, list[str]] = field(default_factory=dict)
    runs: bool = True
    decodes: bool = False


def token(content: str, special: bool = False, **flags: bool) -> dict:
    plain = {"lstrip": False, "normalized": not special, "rstrip": False, "single_word": False}
    return {"content": content, **plain, "special": special} | flags


CLIP_ENDS = {
    "812": token("<|startoftext|>", True, normalized=True),
    "813": token("<|endoftext|>", True, normalized=True),
}
NEW = {
    "814": token("<cat>"),
    "815": token("<cat>_1"),
    "816": token("<Dog>", normalized=False),
    "817": token("<left>", lstrip=True, normalized=False),
    "818": token("<right>", rstrip=True),
    "819": token("sks", single_word=True),
    "820": token("<SPECIAL>", True),
    "821": token("<Loose>", True, normalized=True),
}
TEXTS = [
    "a <cat> and a <Dog>, a <CAT> and a <dog>",
    "two<cat>words <cat>_1 <cat>_2",
    "space  <left>  then  <right>  both",
    "sks sksa asks SKS, sks!",
    "<SPECIAL> <special> <Loose> <loose> <LOOSE>",
    "<|endoftext|> and <|ENDOFTEXT|> and <|startoftext|> done",
    "plain words! <extra_id_0> </s> <pad> of it",
    "",
]


def variants() -> list[Variant]:
    """Every variant."""
    clip, t5 = "tokenizer/tokenizer_config.json", "tokenizer_2/tokenizer_config.json"
    t5_config = json.loads((FIXTURES / "flux-schnell/model" / t5).read_text())
    sentencepiece_ids = t5_config["added_tokens_decoder"]
    t5_new = {str(420 + at): described for at, described in enumerate(NEW.values())}
    more_rows = {"text_encoder/config.json": {"vocab_size": 822}}
    prompt = "A <cat> beside a <Dog>, sks, <left> <right> <SPECIAL> <loose>"
    found = []
    for name, architectures in (("null", None), ("empty", []), ("other", ["CLIPTextModel"])):
        found.append(
            Variant(
                f"sd3-architectures-{name}", "sd3", keys={"text_encoder/config.json": {"architectures": architectures}}
            )
        )
    found += [
        Variant("sd3-architectures-absent", "sd3", without_keys={"text_encoder_2/config.json": ["architectures"]}),
        Variant(
            "flux-architectures-other",
            "flux-schnell",
            keys={"text_encoder/config.json": {"architectures": ["CLIPTextModelWithProjection"]}},
        ),
        Variant(
            "flux-t5-derived-keys",
            "flux-schnell",
            without_keys={"text_encoder_2/config.json": ["feed_forward_proj"]},
        ),
        Variant(
            "flux-t5-derived-keys-win",
            "flux-schnell",
            keys={"text_encoder_2/config.json": {"feed_forward_proj": "gelu"}},
        ),
        Variant(
            "flux-t5-gated-relu",
            "flux-schnell",
            keys={"text_encoder_2/config.json": {"dense_act_fn": "relu"}},
        ),
        Variant(
            "flux-t5-encoder-tokens",
            "flux-schnell",
            renamed={"shared.weight": "encoder.embed_tokens.weight"},
        ),
        Variant(
            "flux-t5-encoder-decoder",
            "flux-schnell",
            keys={"text_encoder_2/config.json": {"architectures": ["T5ForConditionalGeneration"]}},
            copied={
                "encoder.block.0.layer.0.SelfAttention.q.weight": "decoder.block.0.layer.0.SelfAttention.q.weight",
                "shared.weight": "lm_head.weight",
            },
        ),
        Variant(
            "flux-clip-added-tokens-decoder",
            "flux-schnell",
            keys={clip: {"added_tokens_decoder": CLIP_ENDS | NEW}} | more_rows,
            rows=len(NEW),
            prompt=prompt,
            tokens={"tokenizer": TEXTS},
        ),
        Variant(
            "flux-clip-added-tokens-json",
            "flux-schnell",
            without_keys={clip: ["added_tokens_decoder"]},
            texts={
                "tokenizer/added_tokens.json": json.dumps(
                    {described["content"]: int(at) for at, described in NEW.items()}
                )
            },
            keys=more_rows,
            rows=len(NEW),
            prompt=prompt,
            tokens={"tokenizer": TEXTS},
        ),
        Variant(
            "flux-clip-end-not-normalized",
            "flux-schnell",
            keys={
                clip: {
                    "added_tokens_decoder": {
                        "812": token("<|startoftext|>", True, normalized=False),
                        "813": token("<|endoftext|>", True, normalized=False),
                    }
                }
            },
            prompt="A red <|ENDOFTEXT|> apple",
            tokens={"tokenizer": TEXTS},
        ),
        Variant(
            "flux-clip-without-tokenizer-config",
            "flux-schnell",
            without=["tokenizer/tokenizer_config.json"],
            texts={
                "tokenizer/special_tokens_map.json": json.dumps(
                    {
                        "bos_token": token("<|startoftext|>", True, normalized=True),
                        "eos_token": "<|endoftext|>",
                        "additional_special_tokens": ["<SPECIAL>"],
                    }
                ),
                "tokenizer/added_tokens.json": json.dumps({"<cat>": 814, "<SPECIAL>": 815}),
            },
            tokens={"tokenizer": TEXTS},
            runs=False,
        ),
        Variant(
            "flux-clip-extra-special-tokens",
            "flux-schnell",
            keys={clip: {"additional_special_tokens": ["<SPECIAL>", "<cat>"], "image_token": "<Dog>"}},
            tokens={"tokenizer": TEXTS},
            runs=False,
        ),
        Variant(
            "flux-t5-tokenizer-json-added-tokens",
            "flux-schnell",
            keys={
                t5: {"added_tokens_decoder": sentencepiece_ids | t5_new},
                "text_encoder_2/config.json": {"vocab_size": 448},
            },
            prompt=prompt,
            tokens={"tokenizer_2": TEXTS},
        ),
        Variant(
            "flux-t5-spiece-added-tokens",
            "flux-schnell",
            keys={t5: {"added_tokens_decoder": sentencepiece_ids | t5_new}},
            without=["tokenizer_2/tokenizer.json"],
            prompt=prompt,
            tokens={"tokenizer_2": TEXTS},
        ),
        Variant(
            "pixart-t5-added-tokens-json",
            "pixart-alpha",
            without_keys={"tokenizer/tokenizer_config.json": ["added_tokens_decoder"]},
            texts={
                "tokenizer/added_tokens.json": json.dumps(
                    {described["content"]: 420 + at for at, described in enumerate(NEW.values())}
                )
            },
            prompt=prompt,
            tokens={"tokenizer": TEXTS},
        ),
        Variant(
            "flux-vae-null",
            "flux-schnell",
            decodes=True,
            keys={
                "vae/config.json": {"use_post_quant_conv": None, "use_quant_conv": None, "latents_mean": None},
                "transformer/config.json": {"guidance_embeds": None, "out_channels": None},
            },
        ),
        Variant(
            "pixart-null-and-defaults",
            "pixart-sigma",
            decodes=True,
            keys={
                "transformer/config.json": {"norm_elementwise_affine": None, "attention_type": None},
                "scheduler/scheduler_config.json": {
                    "solver_order": 3,
                    "steps_offset": None,
                    "euler_at_final": None,
                    "lower_order_final": None,
                    "_use_default_values": ["solver_order"],
                },
                "vae/config.json": {
                    "shift_factor": 0.5,
                    "scaling_factor": 9,
                    "_use_default_values": ["scaling_factor"],
                },
            },
        ),
        Variant(
            "dit-clip-sample-null",
            "models/f32-safetensors",
            keys={"scheduler/scheduler_config.json": {"clip_sample": None, "set_alpha_to_one": None}},
        ),
        Variant(
            "dit-class-of-the-index",
            "models/f32-safetensors",
            without_keys={"scheduler/scheduler_config.json": ["_class_name"]},
            bom=["scheduler/scheduler_config.json"],
        ),
        Variant(
            "dit-other-class-in-the-index",
            "models/f32-safetensors",
            keys={
                "model_index.json": {"scheduler": ["diffusers", "DPMSolverMultistepScheduler"]},
                "transformer/config.json": {"_class_name": "UNet2DModel"},
                "vae/config.json": {"_class_name": "AutoencoderTiny"},
            },
        ),
    ]
    return found


def change(variant: Variant, folder: Path) -> None:
    """Copy the base model and make the changes, as `crates/runner/tests/goldens/config_variants.rs` does."""
    base = FIXTURES / variant.base
    shutil.copytree(base / "model" if (base / "model").is_dir() else base, folder)
    for path in variant.without:
        (folder / path).unlink()
    for path in {*variant.keys, *variant.without_keys}:
        keys = json.loads((folder / path).read_text()) | variant.keys.get(path, {})
        for key in variant.without_keys.get(path, []):
            del keys[key]
        (folder / path).write_text(json.dumps(keys))
    for path, text in variant.texts.items():
        (folder / path).write_text(text)
    for path in variant.bom:
        (folder / path).write_text("\ufeff" + (folder / path).read_text())
    if variant.rows:
        path = folder / "text_encoder/model.safetensors"
        tensors = load_file(path)
        (name,) = (name for name in tensors if name.endswith("token_embedding.weight"))
        # Those of other tokens, so that nothing random has to be stored.
        tensors[name] = torch.cat([tensors[name], tensors[name][: variant.rows]])
        save_file(tensors, path)
    if variant.renamed or variant.copied:
        path = folder / "text_encoder_2/model.safetensors"
        tensors = load_file(path)
        tensors |= {copy: tensors[name].clone() for name, copy in variant.copied.items()}
        save_file({variant.renamed.get(name, name): tensor for name, tensor in tensors.items()}, path)


@torch.no_grad()
def expected(variant: Variant, folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Token ids of a variant, and its final latents."""
    for path in variant.bom:  # which Python does not skip
        (folder / path).write_text((folder / path).read_text().removeprefix("\ufeff"))
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    tokens = {
        component: [{"text": text, "input_ids": getattr(pipeline, component)(text).input_ids} for text in texts]
        for component, texts in variant.tokens.items()
    }
    if not variant.runs:
        return tokens, {}
    generator = torch.Generator("cpu").manual_seed(SEED)
    arguments = {"num_inference_steps": STEPS, "generator": generator, "output_type": "np"}
    if variant.base.startswith("models/"):
        arguments |= {"class_labels": [1], "guidance_scale": 1.0}
    else:
        arguments |= {"prompt": variant.prompt, "height": 64, "width": 64, "guidance_scale": 4.5}
    if variant.base.startswith("flux"):
        arguments |= {"max_sequence_length": 256, "guidance_scale": 0.0}
    if variant.base.startswith("pixart"):
        arguments |= {"use_resolution_binning": False, "clean_caption": False}
    with recorded_steps(pipeline) as steps:
        image = torch.from_numpy(pipeline(**arguments).images[0])
    tensors = {variant.name: steps.latents[-1].contiguous()}
    if variant.decodes:
        tensors[f"{variant.name}.image"] = (image * 255).round().to(torch.uint8).contiguous()
    return tokens, tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES / "config-variants", help="where the two files go")
    parser.add_argument("--only", help="print what this variant gives, and write nothing")
    options = parser.parse_args()
    quiet()
    entries, tensors = [], {}
    for variant in variants():
        if options.only and options.only != variant.name:
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            change(variant, folder)
            tokens, found = expected(variant, folder)
        entry = {key: value for key, value in vars(variant).items() if value}
        entries.append(entry | {"runs": variant.runs, "tokens": tokens})
        tensors |= found
        print(variant.name, *(round(float(tensor.double().norm()), 4) for tensor in found.values()), flush=True)
        if options.only:
            print(json.dumps(tokens, indent=1))
    if options.only:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    head = f'"num_inference_steps": {STEPS}, "seed": {SEED}'
    (options.out / "variants.json").write_text(f'{{{head}, "variants": [\n{lines}\n]}}\n')
    save_file(tensors, options.out / "variants.safetensors")


if __name__ == "__main__":
    main()
