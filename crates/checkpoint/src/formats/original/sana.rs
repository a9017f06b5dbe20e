//! Sana as NVIDIA names it.

use super::Becomes::{Nothing, One, Parts};
use super::Names;

pub(super) const NAMES: Names = Names {
    family: "Sana",
    class: "SanaTransformer2DModel",
    // PixArt has the same blocks.
    sign: "attention_y_norm.",
    norm_weight: "weight",
    rules: &[
        // Computed by diffusers, and what training puts in the place of captions.
        ("pos_embed", Nothing),
        ("y_embedder.y_embedding", Nothing),
        ("x_embedder.proj", One("patch_embed.proj")),
        ("t_embedder.mlp.0", One("time_embed.emb.timestep_embedder.linear_1")),
        ("t_embedder.mlp.2", One("time_embed.emb.timestep_embedder.linear_2")),
        ("t_block.1", One("time_embed.linear")),
        ("y_embedder.y_proj.fc1", One("caption_projection.linear_1")),
        ("y_embedder.y_proj.fc2", One("caption_projection.linear_2")),
        ("attention_y_norm", One("caption_norm")),
        ("blocks.*.scale_shift_table", One("transformer_blocks.*.scale_shift_table")),
        (
            "blocks.*.attn.qkv",
            Parts(&[
                "transformer_blocks.*.attn1.to_q",
                "transformer_blocks.*.attn1.to_k",
                "transformer_blocks.*.attn1.to_v",
            ]),
        ),
        ("blocks.*.attn.q_norm", One("transformer_blocks.*.attn1.norm_q")),
        ("blocks.*.attn.k_norm", One("transformer_blocks.*.attn1.norm_k")),
        ("blocks.*.attn.proj", One("transformer_blocks.*.attn1.to_out.0")),
        ("blocks.*.cross_attn.q_linear", One("transformer_blocks.*.attn2.to_q")),
        (
            "blocks.*.cross_attn.kv_linear",
            Parts(&["transformer_blocks.*.attn2.to_k", "transformer_blocks.*.attn2.to_v"]),
        ),
        ("blocks.*.cross_attn.q_norm", One("transformer_blocks.*.attn2.norm_q")),
        ("blocks.*.cross_attn.k_norm", One("transformer_blocks.*.attn2.norm_k")),
        ("blocks.*.cross_attn.proj", One("transformer_blocks.*.attn2.to_out.0")),
        ("blocks.*.mlp.inverted_conv.conv", One("transformer_blocks.*.ff.conv_inverted")),
        ("blocks.*.mlp.depth_conv.conv", One("transformer_blocks.*.ff.conv_depth")),
        ("blocks.*.mlp.point_conv.conv", One("transformer_blocks.*.ff.conv_point")),
        ("final_layer.linear", One("proj_out")),
        ("final_layer.scale_shift_table", One("scale_shift_table")),
    ],
};
