//! Models in bf16, and models whose blocks' matrices are quantised, against the pictures that diffusers makes in f32.

use afterimage_runner::{
    BucketChoice, DeviceSpec, LoadOptions, ModelFolder, Pipeline, Precision, Quantization, RunnerError,
};

use crate::psnr;
use crate::text_to_image::{Fixture, pixels, run};

/// Of pictures of random models, whose rough trajectories multiply all rounding.
const LEAST_PSNR: f64 = 30.0;

fn check(name: &str, precision: Precision, quantization: Quantization) {
    let fixture = Fixture::open(name);
    let golden = &fixture.goldens.runs[0];
    let spec = fixture.spec(golden);
    let options =
        LoadOptions { precision, quantization, buckets: vec![BucketChoice::from(spec.size)], ..LoadOptions::default() };
    let pipeline = Pipeline::load(&ModelFolder::open(&fixture.path.join("model")).unwrap(), &options).unwrap();
    let picture = pipeline.decode(run(&pipeline, spec, golden.seed).latents()).unwrap();
    let expected = pixels(fixture.path.join(format!("{}.png", golden.name)));
    let psnr = psnr(&picture.data, &expected);
    println!("{name} {precision:?} {quantization:?}: {psnr:.1} dB");
    assert!(psnr >= LEAST_PSNR, "{name} {precision:?} {quantization:?}: {psnr} dB");
    assert_ne!(picture.data, expected, "{name} {precision:?} {quantization:?}: nothing was rounded");
}

#[test]
fn pictures_of_all_families_stay_what_they_are() {
    for name in
        ["pixart-sigma", "sd3", "sd3.5", "flux-dev", "flux2-klein", "z-image", "qwen-image", "sana-1.5", "hunyuan-1.2"]
    {
        check(name, Precision::F32, Quantization::Int8);
        check(name, Precision::Bf16, Quantization::Int8);
        check(name, Precision::Bf16, Quantization::None);
    }
}

#[test]
fn what_is_not_on_the_cpu_is_not_quantised() {
    let options =
        LoadOptions { quantization: Quantization::Int8, device: DeviceSpec::Cuda(0), ..LoadOptions::default() };
    let error = Pipeline::load(&ModelFolder::embedded(), &options).err().unwrap();
    let RunnerError::LoadOption { option, message } = error else { panic!("{error}") };
    assert_eq!(option, "quantize");
    assert!(message.contains("int8") && message.contains("cuda:0"), "{message}");
}
