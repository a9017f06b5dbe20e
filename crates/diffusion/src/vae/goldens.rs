//! Decoded latents of the text-to-image families against diffusers in f32.

use afterimage_checkpoint::ModelIndex;
use candle_core::{DType, Device, Tensor};

use super::{Vae, VaeClass};
use crate::golden_fixture::Fixture;

/// Of values from 0 to 1, where diffusers clips: sums are taken in another order, through twenty layers.
const TOLERANCE: f32 = 5e-6;

const SHIFTED: VaeClass = VaeClass::Kl { adds_shift: true };

/// Side of the patches that FLUX and Qwen-Image pack into tokens.
const PATCH: usize = 2;

/// Decodes `short.latents` of a fixture; `layout` makes `[1, channels, height, width]` of them.
fn check_picture(name: &str, class: VaeClass, layout: impl Fn(&Tensor, (usize, usize)) -> Tensor) {
    let Fixture { folder, tensors, .. } = Fixture::open(name);
    let index = ModelIndex::read(&folder).unwrap();
    let vae = Vae::load(&folder, &index, class, DType::F32, &Device::Cpu).unwrap();
    let expected = &tensors["short.image"];
    let (_, height, width) = expected.dims3().unwrap();
    let latents = layout(&tensors["short.latents"], (height / vae.scale(), width / vae.scale()));
    let picture = vae.decode(&latents).unwrap().affine(0.5, 0.5).unwrap().clamp(0f32, 1f32).unwrap();
    let difference = (picture.squeeze(0).unwrap() - expected).unwrap().abs().unwrap();
    let difference: f32 = difference.max_all().unwrap().to_scalar().unwrap();
    assert!(difference <= TOLERANCE, "{name}: {difference} off");
}

/// `[1, tokens, channels * 2 * 2]`, the channel slowest, to `[1, channels, height, width]`.
fn unpacked(tokens: &Tensor, (height, width): (usize, usize)) -> Tensor {
    let channels = tokens.dim(2).unwrap() / (PATCH * PATCH);
    let patches = tokens.reshape(&[1, height / PATCH, width / PATCH, channels, PATCH, PATCH]).unwrap();
    patches.permute([0, 3, 1, 4, 2, 5]).unwrap().reshape((1, channels, height, width)).unwrap()
}

#[test]
fn sd3_pictures_equal_those_of_diffusers() {
    for name in ["sd3", "sd3.5"] {
        check_picture(name, SHIFTED, |latents, _| latents.clone());
    }
}

#[test]
fn flux_pictures_equal_those_of_diffusers() {
    for name in ["flux-dev", "flux-schnell"] {
        check_picture(name, SHIFTED, unpacked);
    }
}

#[test]
fn qwen_image_pictures_equal_those_of_diffusers() {
    for name in ["qwen-image", "qwen-image-wide"] {
        check_picture(name, VaeClass::QwenImage, unpacked);
    }
}

#[test]
fn sana_pictures_equal_those_of_diffusers() {
    for name in ["sana", "sana-1.5", "sana-sprint"] {
        check_picture(name, VaeClass::DeepCompression, |latents, _| latents.clone());
    }
}
