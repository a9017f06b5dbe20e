//! The families that are published as whole checkpoints.

/// A family as a checkpoint shows it.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    /// diffusers' class of its transformer.
    pub(super) class: &'static str,
    /// How the name of a tensor begins that only its transformer has, without the prefix of the transformer.
    pub(super) sign: &'static str,
    /// All of it but the transformer.
    pub(super) parts: &'static [Part],
    /// Where its configurations are published, by the shapes of the transformer's tensors.
    pub(super) repository: fn(&ShapeOf<'_>) -> &'static str,
}

/// Of the repositories that are taken by themselves, those whose model is not the only one with such tensors, and the other
/// one's: what differs is in configurations.
pub(super) const TWINS: [(&str, &str); 4] = [
    ("black-forest-labs/FLUX.2-klein-4B", "black-forest-labs/FLUX.2-klein-base-4B"),
    ("black-forest-labs/FLUX.2-klein-9B", "black-forest-labs/FLUX.2-klein-base-9B"),
    ("stabilityai/stable-diffusion-3.5-large", "stabilityai/stable-diffusion-3.5-large-turbo"),
    ("Tongyi-MAI/Z-Image-Turbo", "Tongyi-MAI/Z-Image"),
];

/// The shape of a tensor of the transformer.
type ShapeOf<'a> = dyn Fn(&str) -> Option<Vec<usize>> + 'a;

/// A component beside the transformer.
#[derive(Debug)]
pub(super) struct Part {
    /// In `model_index.json`.
    pub(super) component: &'static str,
    /// What the names of its tensors begin with, in one file or another.
    pub(super) prefixes: &'static [&'static str],
}

const VAE: Part = Part { component: "vae", prefixes: &["vae.", "first_stage_model."] };

/// The first that fits counts: FLUX.2 has the blocks of FLUX.1.
pub(super) static FAMILIES: [Family; 5] = [
    Family {
        name: "FLUX.2",
        class: "Flux2Transformer2DModel",
        sign: "single_stream_modulation.lin.",
        parts: &[
            VAE,
            Part {
                component: "text_encoder",
                prefixes: &[
                    "text_encoders.qwen3_4b.transformer.",
                    "text_encoders.qwen3_8b.transformer.",
                    "text_encoders.mistral3_24b.transformer.",
                ],
            },
        ],
        repository: |shape| match (shape("guidance_in.in_layer.weight"), shape("img_in.weight").as_deref()) {
            (Some(_), _) => "black-forest-labs/FLUX.2-dev",
            (None, Some([4096, ..])) => "black-forest-labs/FLUX.2-klein-9B",
            (None, _) => "black-forest-labs/FLUX.2-klein-4B",
        },
    },
    Family {
        name: "FLUX.1",
        class: "FluxTransformer2DModel",
        sign: "double_blocks.",
        parts: &[
            VAE,
            Part { component: "text_encoder", prefixes: &["text_encoders.clip_l.transformer."] },
            Part { component: "text_encoder_2", prefixes: &["text_encoders.t5xxl.transformer."] },
        ],
        repository: |shape| match shape("guidance_in.in_layer.weight") {
            Some(_) => "black-forest-labs/FLUX.1-dev",
            None => "black-forest-labs/FLUX.1-schnell",
        },
    },
    Family {
        name: "Stable Diffusion 3",
        class: "SD3Transformer2DModel",
        sign: "joint_blocks.",
        parts: &[
            Part { component: "vae", prefixes: &["first_stage_model.", "vae."] },
            Part { component: "text_encoder", prefixes: &["text_encoders.clip_l.transformer."] },
            Part { component: "text_encoder_2", prefixes: &["text_encoders.clip_g.transformer."] },
            Part { component: "text_encoder_3", prefixes: &["text_encoders.t5xxl.transformer."] },
        ],
        repository: |shape| {
            if shape("joint_blocks.37.x_block.mlp.fc1.weight").is_some() {
                "stabilityai/stable-diffusion-3.5-large"
            } else if shape("joint_blocks.0.x_block.attn2.qkv.weight").is_some() {
                "stabilityai/stable-diffusion-3.5-medium"
            } else {
                "stabilityai/stable-diffusion-3-medium-diffusers"
            }
        },
    },
    Family {
        name: "Z-Image",
        class: "ZImageTransformer2DModel",
        sign: "noise_refiner.",
        parts: &[VAE, Part { component: "text_encoder", prefixes: &["text_encoders.qwen3_4b.transformer."] }],
        repository: |_| "Tongyi-MAI/Z-Image-Turbo",
    },
    Family {
        name: "Qwen-Image",
        class: "QwenImageTransformer2DModel",
        sign: "transformer_blocks.0.img_mod.1.",
        parts: &[VAE, Part { component: "text_encoder", prefixes: &["text_encoders.qwen25_7b.transformer."] }],
        repository: |_| "Qwen/Qwen-Image",
    },
];
