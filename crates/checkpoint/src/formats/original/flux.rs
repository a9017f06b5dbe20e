//! FLUX as Black Forest Labs names it.

use super::Becomes::{One, Parts, SquaresAndRest, Swapped};
use super::Names;

pub(super) const NAMES: Names = Names {
    family: "FLUX",
    class: "FluxTransformer2DModel",
    sign: "double_blocks.",
    norm_weight: "scale",
    rules: &[
        ("img_in", One("x_embedder")),
        ("txt_in", One("context_embedder")),
        ("time_in.in_layer", One("time_text_embed.timestep_embedder.linear_1")),
        ("time_in.out_layer", One("time_text_embed.timestep_embedder.linear_2")),
        ("vector_in.in_layer", One("time_text_embed.text_embedder.linear_1")),
        ("vector_in.out_layer", One("time_text_embed.text_embedder.linear_2")),
        ("guidance_in.in_layer", One("time_text_embed.guidance_embedder.linear_1")),
        ("guidance_in.out_layer", One("time_text_embed.guidance_embedder.linear_2")),
        ("double_blocks.*.img_mod.lin", One("transformer_blocks.*.norm1.linear")),
        ("double_blocks.*.txt_mod.lin", One("transformer_blocks.*.norm1_context.linear")),
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
        ("double_blocks.*.img_mlp.0", One("transformer_blocks.*.ff.net.0.proj")),
        ("double_blocks.*.img_mlp.2", One("transformer_blocks.*.ff.net.2")),
        ("double_blocks.*.txt_mlp.0", One("transformer_blocks.*.ff_context.net.0.proj")),
        ("double_blocks.*.txt_mlp.2", One("transformer_blocks.*.ff_context.net.2")),
        ("single_blocks.*.modulation.lin", One("single_transformer_blocks.*.norm.linear")),
        (
            "single_blocks.*.linear1",
            SquaresAndRest(&[
                "single_transformer_blocks.*.attn.to_q",
                "single_transformer_blocks.*.attn.to_k",
                "single_transformer_blocks.*.attn.to_v",
                "single_transformer_blocks.*.proj_mlp",
            ]),
        ),
        ("single_blocks.*.linear2", One("single_transformer_blocks.*.proj_out")),
        ("single_blocks.*.norm.query_norm", One("single_transformer_blocks.*.attn.norm_q")),
        ("single_blocks.*.norm.key_norm", One("single_transformer_blocks.*.attn.norm_k")),
        ("final_layer.adaLN_modulation.1", Swapped("norm_out.linear")),
        ("final_layer.linear", One("proj_out")),
    ],
};
