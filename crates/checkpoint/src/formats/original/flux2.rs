//! FLUX.2 as Black Forest Labs names it.

use super::Becomes::{One, Parts, Swapped};
use super::Names;

pub(super) const NAMES: Names = Names {
    family: "FLUX.2",
    class: "Flux2Transformer2DModel",
    // Blocks are called as in FLUX.
    sign: "single_stream_modulation.lin.",
    norm_weight: "scale",
    rules: &[
        ("img_in", One("x_embedder")),
        ("txt_in", One("context_embedder")),
        ("time_in.in_layer", One("time_guidance_embed.timestep_embedder.linear_1")),
        ("time_in.out_layer", One("time_guidance_embed.timestep_embedder.linear_2")),
        ("guidance_in.in_layer", One("time_guidance_embed.guidance_embedder.linear_1")),
        ("guidance_in.out_layer", One("time_guidance_embed.guidance_embedder.linear_2")),
        ("double_stream_modulation_img.lin", One("double_stream_modulation_img.linear")),
        ("double_stream_modulation_txt.lin", One("double_stream_modulation_txt.linear")),
        ("single_stream_modulation.lin", One("single_stream_modulation.linear")),
        (
            "double_blocks.*.img_attn.qkv",
            Parts(&[
                "transformer_blocks.*.attn.to_q",
                "transformer_blocks.*.attn.to_k",
                "transformer_blocks.*.attn.to_v",
            ]),
        ),
        (
            "double_blocks.*.txt_attn.qkv",
            Parts(&[
                "transformer_blocks.*.attn.add_q_proj",
                "transformer_blocks.*.attn.add_k_proj",
                "transformer_blocks.*.attn.add_v_proj",
            ]),
        ),
        ("double_blocks.*.img_attn.norm.query_norm", One("transformer_blocks.*.attn.norm_q")),
        ("double_blocks.*.img_attn.norm.key_norm", One("transformer_blocks.*.attn.norm_k")),
        ("double_blocks.*.txt_attn.norm.query_norm", One("transformer_blocks.*.attn.norm_added_q")),
        ("double_blocks.*.txt_attn.norm.key_norm", One("transformer_blocks.*.attn.norm_added_k")),
        ("double_blocks.*.img_attn.proj", One("transformer_blocks.*.attn.to_out.0")),
        ("double_blocks.*.txt_attn.proj", One("transformer_blocks.*.attn.to_add_out")),
        ("double_blocks.*.img_mlp.0", One("transformer_blocks.*.ff.linear_in")),
        ("double_blocks.*.img_mlp.2", One("transformer_blocks.*.ff.linear_out")),
        ("double_blocks.*.txt_mlp.0", One("transformer_blocks.*.ff_context.linear_in")),
        ("double_blocks.*.txt_mlp.2", One("transformer_blocks.*.ff_context.linear_out")),
        ("single_blocks.*.linear1", One("single_transformer_blocks.*.attn.to_qkv_mlp_proj")),
        ("single_blocks.*.linear2", One("single_transformer_blocks.*.attn.to_out")),
        ("single_blocks.*.norm.query_norm", One("single_transformer_blocks.*.attn.norm_q")),
        ("single_blocks.*.norm.key_norm", One("single_transformer_blocks.*.attn.norm_k")),
        ("final_layer.adaLN_modulation.1", Swapped("norm_out.linear")),
        ("final_layer.linear", One("proj_out")),
    ],
};
