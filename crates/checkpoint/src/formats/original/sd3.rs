//! Stable Diffusion 3 and 3.5 as Stability names them.

use super::Becomes::{One, Parts, Swapped, SwappedIfTwo};
use super::Names;

pub(super) const NAMES: Names = Names {
    family: "Stable Diffusion 3",
    class: "SD3Transformer2DModel",
    sign: "joint_blocks.",
    norm_weight: "weight",
    rules: &[
        ("pos_embed", One("pos_embed.pos_embed")),
        ("x_embedder.proj", One("pos_embed.proj")),
        ("context_embedder", One("context_embedder")),
        ("t_embedder.mlp.0", One("time_text_embed.timestep_embedder.linear_1")),
        ("t_embedder.mlp.2", One("time_text_embed.timestep_embedder.linear_2")),
        ("y_embedder.mlp.0", One("time_text_embed.text_embedder.linear_1")),
        ("y_embedder.mlp.2", One("time_text_embed.text_embedder.linear_2")),
        ("joint_blocks.*.x_block.adaLN_modulation.1", One("transformer_blocks.*.norm1.linear")),
        // Six chunks in the order of diffusers, or two, of the last block, in the other order.
        ("joint_blocks.*.context_block.adaLN_modulation.1", SwappedIfTwo("transformer_blocks.*.norm1_context.linear")),
        (
            "joint_blocks.*.x_block.attn.qkv",
            Parts(&[
                "transformer_blocks.*.attn.to_q",
                "transformer_blocks.*.attn.to_k",
                "transformer_blocks.*.attn.to_v",
            ]),
        ),
        (
            "joint_blocks.*.context_block.attn.qkv",
            Parts(&[
                "transformer_blocks.*.attn.add_q_proj",
                "transformer_blocks.*.attn.add_k_proj",
                "transformer_blocks.*.attn.add_v_proj",
            ]),
        ),
        (
            "joint_blocks.*.x_block.attn2.qkv",
            Parts(&[
                "transformer_blocks.*.attn2.to_q",
                "transformer_blocks.*.attn2.to_k",
                "transformer_blocks.*.attn2.to_v",
            ]),
        ),
        ("joint_blocks.*.x_block.attn.ln_q", One("transformer_blocks.*.attn.norm_q")),
        ("joint_blocks.*.x_block.attn.ln_k", One("transformer_blocks.*.attn.norm_k")),
        ("joint_blocks.*.context_block.attn.ln_q", One("transformer_blocks.*.attn.norm_added_q")),
        ("joint_blocks.*.context_block.attn.ln_k", One("transformer_blocks.*.attn.norm_added_k")),
        ("joint_blocks.*.x_block.attn2.ln_q", One("transformer_blocks.*.attn2.norm_q")),
        ("joint_blocks.*.x_block.attn2.ln_k", One("transformer_blocks.*.attn2.norm_k")),
        ("joint_blocks.*.x_block.attn.proj", One("transformer_blocks.*.attn.to_out.0")),
        ("joint_blocks.*.context_block.attn.proj", One("transformer_blocks.*.attn.to_add_out")),
        ("joint_blocks.*.x_block.attn2.proj", One("transformer_blocks.*.attn2.to_out.0")),
        ("joint_blocks.*.x_block.mlp.fc1", One("transformer_blocks.*.ff.net.0.proj")),
        ("joint_blocks.*.x_block.mlp.fc2", One("transformer_blocks.*.ff.net.2")),
        ("joint_blocks.*.context_block.mlp.fc1", One("transformer_blocks.*.ff_context.net.0.proj")),
        ("joint_blocks.*.context_block.mlp.fc2", One("transformer_blocks.*.ff_context.net.2")),
        ("final_layer.adaLN_modulation.1", Swapped("norm_out.linear")),
        ("final_layer.linear", One("proj_out")),
    ],
};
