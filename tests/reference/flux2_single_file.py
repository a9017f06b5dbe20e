"""The transformer of `flux2_goldens.py` under the names that Black Forest Labs gave its tensors.

    python tests/reference/flux2_single_file.py [--out tests/fixtures/single-files]

Writes `flux2-klein.safetensors`, with the values of `fixtures/flux2-klein`. The inverse of diffusers' converter is
written down here; the converter itself checks it.
"""

import argparse
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file

FIXTURES = Path(__file__).resolve().parents[2] / "tests/fixtures"
Tensors = dict[str, torch.Tensor]
ALONE = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.linear": "proj_out",
}
SIDES = (
    ("img", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k"), "ff"),
    ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", ("norm_added_q", "norm_added_k"), "ff_context"),
)


def indices(tensors: Tensors, blocks: str) -> range:
    return range(1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(f"{blocks}.")))


def original(tensors: Tensors) -> Tensors:
    """diffusers' names to those of Black Forest Labs."""
    renamed: Tensors = {
        f"{theirs}.weight": tensors[f"{ours}.weight"] for theirs, ours in ALONE.items() if f"{ours}.weight" in tensors
    }
    # Scale and shift become shift and scale.
    renamed["final_layer.adaLN_modulation.1.weight"] = torch.cat(tensors["norm_out.linear.weight"].chunk(2)[::-1])
    for i in indices(tensors, "transformer_blocks"):
        theirs, ours = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for side, projections, out, norms, ff in SIDES:
            names = [f"{ours}.attn.{projection}" for projection in projections]
            renamed[f"{theirs}.{side}_attn.qkv.weight"] = torch.cat([tensors[f"{name}.weight"] for name in names])
            renamed[f"{theirs}.{side}_attn.proj.weight"] = tensors[f"{ours}.attn.{out}.weight"]
            renamed[f"{theirs}.{side}_mlp.0.weight"] = tensors[f"{ours}.{ff}.linear_in.weight"]
            renamed[f"{theirs}.{side}_mlp.2.weight"] = tensors[f"{ours}.{ff}.linear_out.weight"]
            for name, norm in zip(("query_norm", "key_norm"), norms, strict=True):
                renamed[f"{theirs}.{side}_attn.norm.{name}.scale"] = tensors[f"{ours}.attn.{norm}.weight"]
    for i in indices(tensors, "single_transformer_blocks"):
        theirs, ours = f"single_blocks.{i}", f"single_transformer_blocks.{i}.attn"
        renamed[f"{theirs}.linear1.weight"] = tensors[f"{ours}.to_qkv_mlp_proj.weight"]
        renamed[f"{theirs}.linear2.weight"] = tensors[f"{ours}.to_out.weight"]
        renamed[f"{theirs}.norm.query_norm.scale"] = tensors[f"{ours}.norm_q.weight"]
        renamed[f"{theirs}.norm.key_norm.scale"] = tensors[f"{ours}.norm_k.weight"]
    return renamed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES / "single-files", help="where the file goes")
    out = parser.parse_args().out
    [weights] = (FIXTURES / "flux2-klein/model/transformer").glob("*.safetensors")
    tensors = load_file(weights)
    renamed = original(tensors)
    converted = convert_flux2_transformer_checkpoint_to_diffusers(dict(renamed))
    assert converted.keys() == tensors.keys(), converted.keys() ^ tensors.keys()
    assert all(torch.equal(converted[name], tensors[name]) for name in tensors)
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, out / "flux2-klein.safetensors")


if __name__ == "__main__":
    main()
