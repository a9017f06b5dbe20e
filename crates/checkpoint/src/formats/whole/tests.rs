use super::*;
use crate::stored::encoding::Encoding;

/// A tensor's name and shape.
type Named = (&'static str, &'static [usize]);

fn checkpoint(names: &[(&str, &[usize])]) -> Result<WholeCheckpoint, String> {
    let tensor =
        |shape: &[usize]| StoredTensor::contiguous(Encoding::Plain(::safetensors::Dtype::F32), shape.to_vec(), 0);
    let tensors: Vec<_> = names.iter().map(|(name, shape)| ((*name).to_owned(), tensor(shape))).collect();
    WholeCheckpoint::of(&tensors)
}

fn named(names: &[&str]) -> Result<WholeCheckpoint, String> {
    checkpoint(&names.iter().map(|name| (*name, &[1usize][..])).collect::<Vec<_>>())
}

#[test]
fn published_files_are_known_with_their_repositories() {
    let cases: [(&str, &str, &[Named]); 9] = [
        (
            "Stable Diffusion 3",
            "stabilityai/stable-diffusion-3-medium-diffusers",
            &[
                ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", &[1]),
                ("first_stage_model.decoder.conv_in.bias", &[1]),
            ],
        ),
        (
            "Stable Diffusion 3",
            "stabilityai/stable-diffusion-3.5-medium",
            &[("model.diffusion_model.joint_blocks.0.x_block.attn2.qkv.weight", &[1])],
        ),
        (
            "Stable Diffusion 3",
            "stabilityai/stable-diffusion-3.5-large",
            &[("model.diffusion_model.joint_blocks.37.x_block.mlp.fc1.weight", &[1])],
        ),
        (
            "FLUX.1",
            "black-forest-labs/FLUX.1-schnell",
            &[("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", &[1]), ("vae.decoder.conv_in.bias", &[1])],
        ),
        (
            "FLUX.1",
            "black-forest-labs/FLUX.1-dev",
            &[
                ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", &[1]),
                ("model.diffusion_model.guidance_in.in_layer.weight", &[1]),
            ],
        ),
        (
            "FLUX.2",
            "black-forest-labs/FLUX.2-klein-4B",
            &[("model.diffusion_model.single_stream_modulation.lin.weight", &[1])],
        ),
        (
            "FLUX.2",
            "black-forest-labs/FLUX.2-klein-9B",
            &[
                ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", &[1]),
                ("model.diffusion_model.single_stream_modulation.lin.weight", &[1]),
                ("model.diffusion_model.img_in.weight", &[4096, 128]),
            ],
        ),
        (
            "Z-Image",
            "Tongyi-MAI/Z-Image-Turbo",
            &[("model.diffusion_model.noise_refiner.0.attention.qkv.weight", &[1])],
        ),
        ("Qwen-Image", "Qwen/Qwen-Image", &[("model.diffusion_model.transformer_blocks.0.img_mod.1.weight", &[1])]),
    ];
    for (family, repository, names) in cases {
        let found = checkpoint(names).unwrap();
        assert_eq!((found.family(), found.repository), (family, repository));
        assert_eq!(found.parts["transformer"], "model.diffusion_model.");
    }
}

#[test]
fn models_with_the_same_tensors_are_known() {
    let twin = |names: &[Named]| checkpoint(names).unwrap().twin();
    let wide = ("model.diffusion_model.img_in.weight", &[4096, 128][..]);
    let klein = ("model.diffusion_model.single_stream_modulation.lin.weight", &[1][..]);
    assert_eq!(twin(&[klein]), Some("black-forest-labs/FLUX.2-klein-base-4B"));
    assert_eq!(twin(&[klein, wide]), Some("black-forest-labs/FLUX.2-klein-base-9B"));
    let dev = ("model.diffusion_model.guidance_in.in_layer.weight", &[1][..]);
    assert_eq!(twin(&[klein, dev]), None);
    let z_image = ("model.diffusion_model.noise_refiner.0.attention.qkv.weight", &[1][..]);
    assert_eq!(twin(&[z_image]), Some("Tongyi-MAI/Z-Image"));
}

#[test]
fn parts_are_found_and_missing_ones_named() {
    let found = named(&[
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
        "first_stage_model.decoder.conv_in.bias",
        "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight",
        "text_encoders.clip_l.logit_scale",
        "text_encoders.t5xxl.logit_scale",
    ]);
    let found = found.unwrap();
    let expected = [
        ("text_encoder", "text_encoders.clip_l.transformer."),
        ("transformer", "model.diffusion_model."),
        ("vae", "first_stage_model."),
    ];
    assert_eq!(found.parts, expected.map(|(component, prefix)| (component, prefix.to_owned())).into());
    let missing = [
        ("text_encoder_2", "text_encoders.clip_g.transformer."),
        ("text_encoder_3", "text_encoders.t5xxl.transformer."),
    ];
    assert_eq!(found.missing(), missing);
}

#[test]
fn other_files_are_named() {
    for (names, expected) in [
        (
            &["double_blocks.0.img_attn.qkv.weight", "img_in.weight"][..],
            "it holds the transformer of a FLUX.1 and nothing else; give it as --transformer",
        ),
        (
            &["model.diffusion_model.input_blocks.0.0.weight"],
            "it holds the UNet of Stable Diffusion 1, 2 or XL; whole models",
        ),
        (
            &["decoder.mid.block_1.norm1.weight"],
            "it holds a VAE; whole models in one file are read of FLUX.2, FLUX.1, Stable",
        ),
        (&["a.weight", "b.weight"], "it holds tensors named `a.weight`, `b.weight` and so on; whole"),
        (&[], "it holds no tensor; whole models"),
        (&["lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight"], "and so on, a LoRA, which changes a model"),
    ] {
        let error = named(names).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let long = "x".repeat(100_000);
    assert!(named(&[&long]).unwrap_err().contains("a tensor has a name of 100000 bytes"));
}
