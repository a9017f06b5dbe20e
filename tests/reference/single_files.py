"""Single-file checkpoints of the tiny FLUX and SD3 transformers, and what diffusers makes of them.

    python tests/reference/single_files.py [--out tests/fixtures/single-files]

Writes, under the names that Black Forest Labs and Stability gave the tensors,

* `flux-dev.gguf`: Q8_0, as published for ComfyUI;
* `sd3.gguf`: Q4_0 behind the prefix `model.diffusion_model.`, with the convolution as a matrix, as stable-diffusion.cpp
  has them;
* `sd3.5.safetensors`: float16, behind the prefix, beside a tensor of a VAE, as whole checkpoints are published;
* `golden.safetensors`: of each `NAME.output` and `NAME.context_embedder`, those of the fixture of that name computed
  with the weights of the file, dequantised by the gguf package in float32;
* `blocks.gguf` and `blocks.safetensors`: two rows of random blocks of every quantisation, and their values.

The inverse of diffusers' converters is written down here; the converters themselves check it. diffusers dequantises in
float16; the script checks that nothing else differs from the gguf package.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures"
PREFIX = "model.diffusion_model."
Tensors = dict[str, torch.Tensor]

FLUX_WIDTH = 3072
"""diffusers' converter of FLUX knows no other."""

QUANTISED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def swapped(tensor: torch.Tensor) -> torch.Tensor:
    """(scale, shift) to (shift, scale)."""
    return torch.cat(tensor.chunk(2)[::-1])


def joined(tensors: Tensors, names: list[str], parameter: str) -> torch.Tensor:
    return torch.cat([tensors[f"{name}.{parameter}"] for name in names])


def linear(target: Tensors, name: str, tensors: Tensors, source: str) -> None:
    for parameter in ("weight", "bias"):
        target[f"{name}.{parameter}"] = tensors[f"{source}.{parameter}"]


def indices(tensors: Tensors, blocks: str) -> range:
    return range(1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(f"{blocks}.")))


def flux_original(tensors: Tensors) -> Tensors:
    """diffusers' names to those of Black Forest Labs."""
    original: Tensors = {}
    for theirs, ours in (("img_in", "x_embedder"), ("txt_in", "context_embedder"), ("final_layer.linear", "proj_out")):
        linear(original, theirs, tensors, ours)
    embedders = {"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"}
    for theirs, ours in embedders.items():
        if f"time_text_embed.{ours}.linear_1.weight" in tensors:
            linear(original, f"{theirs}.in_layer", tensors, f"time_text_embed.{ours}.linear_1")
            linear(original, f"{theirs}.out_layer", tensors, f"time_text_embed.{ours}.linear_2")
    for parameter in ("weight", "bias"):
        original[f"final_layer.adaLN_modulation.1.{parameter}"] = swapped(tensors[f"norm_out.linear.{parameter}"])
    for i in indices(tensors, "transformer_blocks"):
        theirs, ours = f"double_blocks.{i}", f"transformer_blocks.{i}"
        sides = (
            ("img", "norm1", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k"), "ff"),
            (
                "txt",
                "norm1_context",
                ("add_q_proj", "add_k_proj", "add_v_proj"),
                "to_add_out",
                ("norm_added_q", "norm_added_k"),
                "ff_context",
            ),
        )
        for side, norm, projections, out, norms, ff in sides:
            linear(original, f"{theirs}.{side}_mod.lin", tensors, f"{ours}.{norm}.linear")
            linear(original, f"{theirs}.{side}_attn.proj", tensors, f"{ours}.attn.{out}")
            linear(original, f"{theirs}.{side}_mlp.0", tensors, f"{ours}.{ff}.net.0.proj")
            linear(original, f"{theirs}.{side}_mlp.2", tensors, f"{ours}.{ff}.net.2")
            for parameter in ("weight", "bias"):
                names = [f"{ours}.attn.{projection}" for projection in projections]
                original[f"{theirs}.{side}_attn.qkv.{parameter}"] = joined(tensors, names, parameter)
            for name, norm in zip(("query_norm", "key_norm"), norms, strict=True):
                original[f"{theirs}.{side}_attn.norm.{name}.scale"] = tensors[f"{ours}.attn.{norm}.weight"]
    for i in indices(tensors, "single_transformer_blocks"):
        theirs, ours = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        linear(original, f"{theirs}.modulation.lin", tensors, f"{ours}.norm.linear")
        linear(original, f"{theirs}.linear2", tensors, f"{ours}.proj_out")
        names = [f"{ours}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
        for parameter in ("weight", "bias"):
            original[f"{theirs}.linear1.{parameter}"] = joined(tensors, names, parameter)
        original[f"{theirs}.norm.query_norm.scale"] = tensors[f"{ours}.attn.norm_q.weight"]
        original[f"{theirs}.norm.key_norm.scale"] = tensors[f"{ours}.attn.norm_k.weight"]
    return original


def sd3_original(tensors: Tensors) -> Tensors:
    """diffusers' names to Stability's."""
    original: Tensors = {"pos_embed": tensors["pos_embed.pos_embed"]}
    linear(original, "x_embedder.proj", tensors, "pos_embed.proj")
    linear(original, "context_embedder", tensors, "context_embedder")
    linear(original, "final_layer.linear", tensors, "proj_out")
    for theirs, ours in (("t_embedder", "timestep_embedder"), ("y_embedder", "text_embedder")):
        linear(original, f"{theirs}.mlp.0", tensors, f"time_text_embed.{ours}.linear_1")
        linear(original, f"{theirs}.mlp.2", tensors, f"time_text_embed.{ours}.linear_2")
    for parameter in ("weight", "bias"):
        original[f"final_layer.adaLN_modulation.1.{parameter}"] = swapped(tensors[f"norm_out.linear.{parameter}"])
    blocks = indices(tensors, "transformer_blocks")
    for i in blocks:
        theirs, ours = f"joint_blocks.{i}", f"transformer_blocks.{i}"
        sides = [
            ("x_block.attn", "attn", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k")),
            (
                "context_block.attn",
                "attn",
                ("add_q_proj", "add_k_proj", "add_v_proj"),
                "to_add_out",
                ("norm_added_q", "norm_added_k"),
            ),
            ("x_block.attn2", "attn2", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k")),
        ]
        for block, attention, projections, out, norms in sides:
            names = [f"{ours}.{attention}.{projection}" for projection in projections]
            if f"{names[0]}.weight" not in tensors:
                continue
            for parameter in ("weight", "bias"):
                original[f"{theirs}.{block}.qkv.{parameter}"] = joined(tensors, names, parameter)
            if f"{ours}.{attention}.{out}.weight" in tensors:
                linear(original, f"{theirs}.{block}.proj", tensors, f"{ours}.{attention}.{out}")
            for name, norm in zip(("ln_q", "ln_k"), norms, strict=True):
                if f"{ours}.{attention}.{norm}.weight" in tensors:
                    original[f"{theirs}.{block}.{name}.weight"] = tensors[f"{ours}.{attention}.{norm}.weight"]
        for block, norm, ff in (("x_block", "norm1", "ff"), ("context_block", "norm1_context", "ff_context")):
            is_last = block == "context_block" and i == blocks[-1]
            for parameter in ("weight", "bias"):
                modulation = tensors[f"{ours}.{norm}.linear.{parameter}"]
                name = f"{theirs}.{block}.adaLN_modulation.1.{parameter}"
                original[name] = swapped(modulation) if is_last else modulation
            if not is_last:
                linear(original, f"{theirs}.{block}.mlp.fc1", tensors, f"{ours}.{ff}.net.0.proj")
                linear(original, f"{theirs}.{block}.mlp.fc2", tensors, f"{ours}.{ff}.net.2")
    return original


def check_flux_names() -> None:
    """The converter gives back what was inverted, at the only width that it can do, one column wide."""
    shapes = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=True,
    ).state_dict()
    times = FLUX_WIDTH // 32
    tensors = {
        name: torch.randn(tensor.shape[0] * times, *[1] * (tensor.dim() - 1)) for name, tensor in shapes.items()
    }
    assert_same(convert_flux_transformer_checkpoint_to_diffusers(flux_original(tensors)), tensors)


def check_sd3_names(tensors: Tensors) -> None:
    assert_same(convert_sd3_transformer_checkpoint_to_diffusers(sd3_original(tensors)), tensors)


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def write_gguf(path: Path, architecture: str, tensors: Tensors, matrices: GGMLQuantizationType) -> Tensors:
    """Matrices are quantised where their rows are whole blocks, else float16. Returns what was written."""
    writer = gguf.GGUFWriter(path, architecture)
    written: Tensors = {}
    for name, tensor in tensors.items():
        kind = GGMLQuantizationType.F32
        if tensor.dim() == 2:
            fits = tensor.shape[1] % GGML_QUANT_SIZES[matrices][0] == 0
            kind = matrices if fits else GGMLQuantizationType.F16
        data = gguf.quants.quantize(tensor.numpy(), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        values = gguf.quants.dequantize(data, kind).astype(np.float32)
        written[name] = torch.from_numpy(values).reshape(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def record(golden: Tensors, name: str, tensors: Tensors) -> None:
    """The recorded forward of the fixture, with other weights."""
    model = with_weights(name, tensors)
    recorded = load_file(FIXTURES / name / "golden.safetensors")
    arguments = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance")
    if isinstance(model, FluxTransformer2DModel):
        arguments += ("img_ids", "txt_ids")
    given = {argument: recorded[f"forward.{argument}"] for argument in arguments if f"forward.{argument}" in recorded}

    def keep(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        golden[f"{name}.context_embedder"] = output.contiguous()

    model.context_embedder.register_forward_hook(keep)
    with torch.no_grad():
        golden[f"{name}.output"] = model(**given, return_dict=False)[0].contiguous()
    output = recorded["forward.output"]
    difference = (golden[f"{name}.output"] - output).abs().max() / output.abs().max()
    print(f"{name}: the output moves by {difference:.1e} of its largest value")


def with_weights(name: str, tensors: Tensors) -> torch.nn.Module:
    kind = FluxTransformer2DModel if name.startswith("flux") else SD3Transformer2DModel
    model = kind.from_pretrained(FIXTURES / name / "model/transformer")
    model.load_state_dict(tensors)
    return model


def stored(name: str) -> Tensors:
    return load_file(FIXTURES / name / "model/transformer/diffusion_pytorch_model.safetensors")


def flux_from_original(original: Tensors, like: Tensors) -> Tensors:
    """diffusers' names back, for a width that its converter cannot do."""
    counted = {name: torch.arange(tensor.numel(), dtype=torch.float64) for name, tensor in like.items()}
    marked = {name: values.reshape(like[name].shape) for name, values in counted.items()}
    offsets = {name: float(index) * 2.0**32 for index, name in enumerate(like)}
    marked = flux_original({name: tensor + offsets[name] for name, tensor in marked.items()})
    places = torch.cat([marked[name].flatten() for name in original])
    values = torch.cat([tensor.flatten() for tensor in original.values()])
    order = torch.argsort(places)
    sizes = [tensor.numel() for tensor in like.values()]
    parts = values[order].split(sizes)
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}


def write_blocks(out: Path) -> None:
    """Random blocks with scales near 1/100, and their values."""
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(out / "blocks.gguf", "blocks")
    values = {}
    scale = np.float16(0.01).tobytes()
    places = dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2))
    places |= {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}
    for name in QUANTISED:
        kind = GGMLQuantizationType[name]
        block, size = GGML_QUANT_SIZES[kind]
        data = generator.integers(0, 256, (2, 512 // block * size), dtype=np.uint8)
        blocks = data.reshape(-1, size)
        for place in places.get(name, (0,)):
            blocks[:, place : place + 2] = np.frombuffer(scale, np.uint8)
        writer.add_tensor(name, data, raw_dtype=kind)
        values[name] = torch.from_numpy(gguf.quants.dequantize(data, kind).astype(np.float32))
        diffusers = dequantize_gguf_tensor(GGUFParameter(torch.from_numpy(data), quant_type=kind)).float()
        assert (diffusers - values[name]).abs().max() <= 2e-3 * values[name].abs().max(), name
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(values, out / "blocks.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES / "single-files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    golden: Tensors = {}

    check_flux_names()
    flux = stored("flux-dev")
    written = write_gguf(out / "flux-dev.gguf", "flux", flux_original(flux), GGMLQuantizationType.Q8_0)
    record(golden, "flux-dev", flux_from_original(written, flux))

    sd3 = stored("sd3")
    check_sd3_names(sd3)
    originals = sd3_original(sd3)
    kernel = originals["x_embedder.proj.weight"].shape
    originals["x_embedder.proj.weight"] = originals["x_embedder.proj.weight"].flatten(1)
    originals["pos_embed"] = originals["pos_embed"].squeeze(0)
    prefixed = {PREFIX + name: tensor for name, tensor in originals.items()}
    written = write_gguf(out / "sd3.gguf", "sd3", prefixed, GGMLQuantizationType.Q4_0)
    written = {name.removeprefix(PREFIX): tensor for name, tensor in written.items()}
    written["x_embedder.proj.weight"] = written["x_embedder.proj.weight"].reshape(kernel)
    written["pos_embed"] = written["pos_embed"].unsqueeze(0)
    record(golden, "sd3", convert_sd3_transformer_checkpoint_to_diffusers(written))

    sd35 = stored("sd3.5")
    check_sd3_names(sd35)
    halves = {PREFIX + name: tensor.half().contiguous() for name, tensor in sd3_original(sd35).items()}
    save_file(halves | {"first_stage_model.decoder.conv_in.bias": torch.zeros(16)}, out / "sd3.5.safetensors")
    record(golden, "sd3.5", {name: tensor.half().float() for name, tensor in sd35.items()})

    save_file(golden, out / "golden.safetensors")
    write_blocks(out)


if __name__ == "__main__":
    main()
