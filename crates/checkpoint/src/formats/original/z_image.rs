//! Z-Image as ComfyUI names it.

use super::Becomes::{One, Parts};
use super::Names;

pub(super) const NAMES: Names = Names {
    family: "Z-Image",
    class: "ZImageTransformer2DModel",
    // Both kinds of files have it.
    sign: "noise_refiner.",
    norm_weight: "weight",
    rules: &[
        ("x_embedder", One("all_x_embedder.2-1")),
        ("final_layer.linear", One("all_final_layer.2-1.linear")),
        ("final_layer.adaLN_modulation.1", One("all_final_layer.2-1.adaLN_modulation.1")),
        (
            "layers.*.attention.qkv",
            Parts(&["layers.*.attention.to_q", "layers.*.attention.to_k", "layers.*.attention.to_v"]),
        ),
        ("layers.*.attention.out", One("layers.*.attention.to_out.0")),
        ("layers.*.attention.q_norm", One("layers.*.attention.norm_q")),
        ("layers.*.attention.k_norm", One("layers.*.attention.norm_k")),
        (
            "noise_refiner.*.attention.qkv",
            Parts(&[
                "noise_refiner.*.attention.to_q",
                "noise_refiner.*.attention.to_k",
                "noise_refiner.*.attention.to_v",
            ]),
        ),
        ("noise_refiner.*.attention.out", One("noise_refiner.*.attention.to_out.0")),
        ("noise_refiner.*.attention.q_norm", One("noise_refiner.*.attention.norm_q")),
        ("noise_refiner.*.attention.k_norm", One("noise_refiner.*.attention.norm_k")),
        (
            "context_refiner.*.attention.qkv",
            Parts(&[
                "context_refiner.*.attention.to_q",
                "context_refiner.*.attention.to_k",
                "context_refiner.*.attention.to_v",
            ]),
        ),
        ("context_refiner.*.attention.out", One("context_refiner.*.attention.to_out.0")),
        ("context_refiner.*.attention.q_norm", One("context_refiner.*.attention.norm_q")),
        ("context_refiner.*.attention.k_norm", One("context_refiner.*.attention.norm_k")),
    ],
};
