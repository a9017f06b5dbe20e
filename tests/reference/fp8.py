"""fp8 weights as they are shared, and what diffusers and transformers make of their values.

    python tests/reference/fp8.py [--out tests/fixtures/fp8]

Writes

* `flux-dev.safetensors`: ComfyUI's older scaled form: original names behind the prefix, one `scale_weight` a matrix,
  `scale_input`, and the mark `scaled_fp8`; what is no matrix in bfloat16;
* `flux-dev-plain.safetensors`: original names, everything in float8_e4m3fn as it is, as `flux1-dev-fp8`;
* `z-image.safetensors`: ComfyUI's newer form: its names, `weight_scale` for every row of the joined projections and
  for each other matrix as a whole, and descriptions `comfy_quant`;
* `sd3/`: a folder of diffusers in float8_e5m2, in two shards of which the second has all `weight_scale` and
  `input_scale`;
* `t5-scaled/` and `t5-plain/`: the T5 of `sd3` as `t5xxl_fp8_e4m3fn_scaled` and `t5xxl_fp8_e4m3fn`;
* `golden.safetensors`: `FILE.MODULE`, outputs of the forward that the model's own fixture recorded, computed in
  float32 with the values of the file; of T5 `FILE.PROMPT`, the states of a prompt of `sd3`.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from single_files import PREFIX, assert_same, flux_from_original, flux_original, record, stored
from transformers import T5EncoderModel

FIXTURES = Path(__file__).resolve().parents[2] / "tests/fixtures"
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
PROMPTS = ("short", "long")
Tensors = dict[str, torch.Tensor]


def is_matrix(name: str, tensor: torch.Tensor) -> bool:
    return tensor.dim() == 2 and name.endswith(".weight")


def quantised(weight: torch.Tensor, dtype: torch.dtype, of_rows: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """What is stored, and the scale that it is to be multiplied with: `[]`, or `[rows, 1]`."""
    limit = torch.finfo(dtype).max
    largest = weight.abs().amax(dim=1, keepdim=True) if of_rows else weight.abs().amax()
    scale = largest / limit
    return (weight / scale).clamp(-limit, limit).to(dtype), scale


def scaled(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """ComfyUI's older form, and the values."""
    # Two elements ask for products in full precision.
    file, values = {"scaled_fp8": torch.zeros(2).to(E4M3)}, {}
    for name, tensor in tensors.items():
        if is_matrix(name, tensor):
            file[name], scale = quantised(tensor, E4M3)
            stem = name.removesuffix("weight")
            file[f"{stem}scale_weight"] = scale
            file[f"{stem}scale_input"] = torch.ones(())
            values[name] = file[name].float() * scale
        else:
            file[name] = tensor.bfloat16()
            values[name] = file[name].float()
    return file, values


def plain(tensors: Tensors) -> tuple[Tensors, Tensors]:
    file = {name: tensor.to(E4M3) for name, tensor in tensors.items()}
    return file, {name: tensor.float() for name, tensor in file.items()}


def described(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """ComfyUI's newer form, and the values."""
    file, values = {}, {}
    for name, tensor in tensors.items():
        if not is_matrix(name, tensor):
            file[name], values[name] = tensor.bfloat16(), tensor.bfloat16().float()
            continue
        of_rows = name.endswith("qkv.weight")
        file[name], scale = quantised(tensor, E4M3, of_rows)
        values[name] = file[name].float() * scale
        stem = name.removesuffix("weight")
        # One dimension for rows, and one for a whole, is as common as none.
        file[f"{stem}weight_scale"] = scale.flatten()
        text = {"format": "float8_e4m3fn_rowwise" if of_rows else "float8_e4m3fn", "full_precision_matrix_mult": True}
        file[f"{stem}comfy_quant"] = torch.tensor(list(json.dumps(text).encode()), dtype=torch.uint8)
    return file, values


def z_image_original(tensors: Tensors) -> Tensors:
    """diffusers' names to those of ComfyUI."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        name = name.replace("all_x_embedder.2-1.", "x_embedder.").replace("all_final_layer.2-1.", "final_layer.")
        name = name.replace(".attention.to_out.0.", ".attention.out.")
        name = name.replace(".attention.norm_q.", ".attention.q_norm.").replace(
            ".attention.norm_k.", ".attention.k_norm."
        )
        if ".attention.to_q." in name:
            parts = [tensors[name.replace(".to_q.", f".to_{part}.")] for part in "qkv"]
            renamed[name.replace(".to_q.", ".qkv.")] = torch.cat(parts)
        elif ".attention.to_k." not in name and ".attention.to_v." not in name:
            renamed[name] = tensor
    return renamed


@torch.no_grad()
def z_image_forward(tensors: Tensors) -> Tensors:
    """The recorded forward of `z-image` with other weights."""
    model = ZImageTransformer2DModel.from_pretrained(FIXTURES / "z-image/model/transformer", torch_dtype=torch.float32)
    model.load_state_dict(tensors)
    recorded = load_file(FIXTURES / "z-image/golden.safetensors")
    latents = [row.unsqueeze(1) for row in recorded["forward.latents"]]
    captions = [recorded[f"forward.captions.{row}"] for row in range(len(latents))]
    outputs: Tensors = {}

    def keep(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        outputs["context_refiner"] = output.clone()

    model.context_refiner[-1].register_forward_hook(keep)
    output = model(latents, recorded["forward.timestep"], captions, return_dict=False)[0]
    return outputs | {"output": torch.stack(output).squeeze(2)}


@torch.no_grad()
def t5_states(values: Tensors) -> Tensors:
    """The states of prompts as Stable Diffusion 3 asks for them: padded, without a mask."""
    model = T5EncoderModel.from_pretrained(FIXTURES / "sd3/model/text_encoder_3").eval()
    model.load_state_dict(values)
    golden = json.loads((FIXTURES / "sd3/golden.json").read_text())
    ids = {prompt["name"]: prompt["tokens"]["tokenizer_3"]["input_ids"] for prompt in golden["prompts"]}
    return {name: model(torch.tensor([ids[name]]))[0] for name in PROMPTS}


def add(golden: Tensors, file: str, outputs: Tensors) -> None:
    golden |= {f"{file}.{name}": tensor.contiguous() for name, tensor in outputs.items()}


def recorded_forward(name: str, tensors: Tensors) -> Tensors:
    outputs: Tensors = {}
    record(outputs, name, tensors)
    return {key.removeprefix(f"{name}."): tensor for key, tensor in outputs.items()}


def write_flux(out: Path, golden: Tensors) -> None:
    like = stored("flux-dev")
    original = flux_original(like)
    file, values = scaled(original)
    save({PREFIX + name: tensor for name, tensor in file.items()}, out / "flux-dev.safetensors")
    add(golden, "flux-dev", recorded_forward("flux-dev", flux_from_original(values, like)))
    file, values = plain(original)
    save(file, out / "flux-dev-plain.safetensors")
    add(golden, "flux-dev-plain", recorded_forward("flux-dev", flux_from_original(values, like)))


def write_z_image(out: Path, golden: Tensors) -> None:
    tensors: Tensors = {}
    for shard in sorted((FIXTURES / "z-image/model/transformer").glob("*.safetensors")):
        tensors |= load_file(shard)
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    original = z_image_original(tensors)
    assert_same(convert_z_image_transformer_checkpoint_to_diffusers(dict(original)), tensors)
    file, values = described(original)
    save(file, out / "z-image.safetensors")
    add(golden, "z-image", z_image_forward(convert_z_image_transformer_checkpoint_to_diffusers(values)))


def write_sd3(out: Path, golden: Tensors) -> None:
    """As ModelOpt writes folders of diffusers, but for the format of the numbers."""
    numbers, scales, values = {}, {}, {}
    for name, tensor in stored("sd3").items():
        if is_matrix(name, tensor):
            numbers[name], scale = quantised(tensor, E5M2)
            stem = name.removesuffix("weight")
            scales |= {f"{stem}weight_scale": scale, f"{stem}input_scale": torch.tensor(0.5)}
            values[name] = numbers[name].float() * scale
        else:
            numbers[name] = tensor.half()
            values[name] = numbers[name].float()
    folder = out / "sd3"
    folder.mkdir()
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, shard in zip(names, (numbers, scales), strict=True):
        save(shard, folder / name)
    weight_map = dict.fromkeys(numbers, names[0]) | dict.fromkeys(scales, names[1])
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    add(golden, "sd3", recorded_forward("sd3", values))


def write_t5(out: Path, golden: Tensors) -> None:
    tensors = load_file(FIXTURES / "sd3/model/text_encoder_3/model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    tables = {name for name in tensors if name in ("shared.weight", "encoder.embed_tokens.weight")}
    tables |= {name for name in tensors if "relative_attention_bias" in name}
    file, values = scaled({name: tensor for name, tensor in tensors.items() if name not in tables})
    wide = {name: tensors[name].half() for name in tables}
    values |= {name: tensor.float() for name, tensor in wide.items()}
    file |= wide | {"logit_scale": torch.tensor(4.6), "spiece_model": torch.zeros(5, dtype=torch.uint8)}
    (out / "t5-scaled").mkdir()
    save(file, out / "t5-scaled/t5xxl_fp8_e4m3fn_scaled.safetensors")
    add(golden, "t5-scaled", t5_states(values))
    file, values = plain(tensors)
    (out / "t5-plain").mkdir()
    save(file, out / "t5-plain/t5xxl_fp8_e4m3fn.safetensors")
    add(golden, "t5-plain", t5_states(values))


def save(tensors: Tensors, path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES / "fp8", help="where the files go")
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.set_num_threads(1)
    golden: Tensors = {}
    write_flux(out, golden)
    write_z_image(out, golden)
    write_sd3(out, golden)
    write_t5(out, golden)
    save(golden, out / "golden.safetensors")


if __name__ == "__main__":
    main()
