use candle_core::{DType, Device};

use super::*;
use crate::{Parameters, Weights};

/// What a model might ask for.
fn recorded() -> RandomTensors {
    let (parameters, recorder) = Parameters::recording(DType::BF16);
    let recorder = recorder.without(&["proj.alias"]);
    assert_eq!((parameters.contains("proj.weight"), parameters.contains("proj.alias")), (true, false));
    let block = parameters.pp("transformer_blocks").pp(0);
    let huge = block.pp("attn").matrix(1 << 40, 1 << 20, "to_q.weight").unwrap();
    assert_eq!((huge.outputs, huge.inputs), (1 << 40, 1 << 20));
    let kernel = parameters.get((8, 4, 3, 3), "conv.weight").unwrap();
    assert_eq!((kernel.dims(), kernel.dtype()), ([8, 4, 3, 3].as_slice(), DType::BF16));
    // Once, however often it is asked for.
    parameters.get((8, 4, 3, 3), "conv.weight").unwrap();
    parameters.get(8, "conv.bias").unwrap();
    recorder.tensors()
}

#[test]
fn what_is_asked_for_is_noted() {
    let specs = recorded();
    let noted: Vec<_> =
        specs.specs().iter().map(|spec| (spec.name.as_str(), spec.shape.as_slice(), spec.is_matrix)).collect();
    assert_eq!(
        noted,
        [
            ("conv.bias", [8].as_slice(), false),
            ("conv.weight", &[8, 4, 3, 3], false),
            ("transformer_blocks.0.attn.to_q.weight", &[1 << 40, 1 << 20], true),
        ]
    );
    assert_eq!(specs.elements(), 8 + 8 * 36 + (1 << 60));
}

#[test]
fn values_are_spread_as_torch_spreads_them() {
    use super::values::Init;

    for (name, shape, bound) in [
        ("x.weight", vec![6, 4], 0.5),
        ("x.weight", vec![6, 4, 2, 2], 0.25),
        ("scale_shift_table", vec![6, 16], 0.25),
        ("pos_embed.pos_embed", vec![1, 9, 4], 0.5),
        ("relative_attention_bias.weight", vec![32, 4], 0.5),
    ] {
        assert_eq!(Init::of(name, &shape), Init::Uniform { bound }, "{name} {shape:?}");
    }
    for (name, init) in [("norm.weight", Init::Ones), ("query_norm.scale", Init::Ones), ("norm.bias", Init::Zeros)] {
        assert_eq!(Init::of(name, &[4]), init, "{name}");
    }
}

#[test]
fn makers_keep_several_matrices_in_one() {
    let (parameters, recorder) = Parameters::recording(DType::F32);
    let block = parameters.pp("single_transformer_blocks.3");
    for (name, outputs) in [("attn.to_q", 16), ("attn.to_k", 16), ("attn.to_v", 16), ("proj_mlp", 64)] {
        block.pp(name).matrix(outputs, 16, "weight").unwrap();
        block.pp(name).get(outputs, "bias").unwrap();
    }
    block.get(8, "attn.norm_q.weight").unwrap();
    let tensors = recorder.tensors();
    let original = tensors.with_original_names("FluxTransformer2DModel");
    let noted: Vec<_> =
        original.specs().iter().map(|spec| (spec.name.as_str(), spec.shape.as_slice(), spec.is_matrix)).collect();
    assert_eq!(
        noted,
        [
            ("single_blocks.3.linear1.bias", [112].as_slice(), false),
            ("single_blocks.3.linear1.weight", &[112, 16], true),
            ("single_blocks.3.norm.query_norm.scale", &[8], false),
        ]
    );
    let names = |tensors: &RandomTensors| tensors.specs().iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&tensors.with_original_names("DiTTransformer2DModel")), names(&tensors));
}

#[test]
fn files_hold_what_was_recorded() {
    let (parameters, recorder) = Parameters::recording(DType::F32);
    parameters.matrix(4, 6, "transformer_blocks.0.x.weight").unwrap();
    let mut tensors = recorder.tensors();
    tensors.extend([("surplus.bias".to_owned(), vec![3])]);
    let place = tempfile::tempdir().unwrap();
    tensors.write_safetensors(&place.path().join("diffusion_pytorch_model.safetensors"), 0, DType::F16).unwrap();
    let weights = Weights::open(place.path()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["surplus.bias", "transformer_blocks.0.x.weight"]);
    let read = weights.parameters(DType::F32, &Device::Cpu).get((4, 6), "transformer_blocks.0.x.weight").unwrap();
    assert!(read.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() <= 1.0 / 6f32.sqrt());
    let path = place.path().join("x.safetensors");
    let error = tensors.write_safetensors(&path, 0, DType::U8).unwrap_err().to_string();
    assert!(error.ends_with("random weights can be stored as f32, f16 or bf16, not as U8"), "{error}");
}
