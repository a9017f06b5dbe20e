//! Values and published forms: the fixtures `weights/fp8` and `fp8`, in the tests of those who open them.

use std::slice;

use ::safetensors::tensor::TensorView;

use super::*;
use crate::formats::safetensors;

/// A tensor of a file.
struct Stored {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// 3 rows of 2 in E4M3.
fn weight(name: &'static str) -> Stored {
    Stored { name, dtype: Dtype::F8_E4M3, shape: vec![3, 2], bytes: vec![0x38, 0x40, 0x38, 0x40, 0x38, 0x40] }
}

fn scale(name: &'static str, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Stored { name, dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

fn text(name: &'static str, text: &str) -> Stored {
    Stored { name, dtype: Dtype::U8, shape: vec![text.len()], bytes: text.into() }
}

fn mark(name: &'static str) -> Stored {
    Stored { name, dtype: Dtype::F8_E4M3, shape: vec![0], bytes: Vec::new() }
}

fn opened(stored: &[Stored]) -> Result<Vec<Named>, CheckpointError> {
    opened_part(stored, "")
}

fn opened_part(stored: &[Stored], prefix: &str) -> Result<Vec<Named>, CheckpointError> {
    let views = stored
        .iter()
        .map(|tensor| (tensor.name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap()));
    let source = Source::memory("fp8.safetensors", ::safetensors::serialize(views, None).unwrap());
    applied(safetensors::tensors(&source).unwrap(), prefix, slice::from_ref(&source))
}

fn scales(stored: &[Stored]) -> Vec<(String, Scale)> {
    let mut found: Vec<_> = opened(stored).unwrap().into_iter().map(|(name, tensor)| (name, tensor.scale)).collect();
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    found
}

fn fault(stored: &[Stored]) -> String {
    let error = opened(stored).unwrap_err().to_string();
    error.strip_prefix("fp8.safetensors: ").expect(&error).to_owned()
}

#[test]
fn scales_of_all_names_and_shapes_are_found() {
    let whole = Scale::Tensor(0.5);
    for name in ["a.scale_weight", "a.weight_scale", "a.weight_scale_inv"] {
        for shape in [[].as_slice(), &[1], &[1, 1]] {
            assert_eq!(
                scales(&[weight("a.weight"), scale(name, shape, &[0.5])]),
                [("a.weight".to_owned(), whole.clone())]
            );
        }
        for shape in [[3].as_slice(), &[3, 1]] {
            let found = scales(&[weight("a.weight"), scale(name, shape, &[1.0, 2.0, 3.0])]);
            assert_eq!(found, [("a.weight".to_owned(), Scale::Rows(vec![1.0, 2.0, 3.0]))]);
        }
    }
}

#[test]
fn what_stands_beside_weights_is_left_out() {
    let found = scales(&[
        weight("model.a.weight"),
        scale("model.a.scale_weight", &[], &[0.5]),
        scale("model.a.scale_input", &[], &[2.0]),
        text(
            "model.a.comfy_quant",
            r#"{"format": "float8_e4m3fn", "full_precision_matrix_mult": true, "convrot": false}"#,
        ),
        weight("model.a.bias"),
        mark("model.scaled_fp8"),
        // Another model, of which nothing is said.
        weight("other.weight"),
    ]);
    let plain = |name: &str| (name.to_owned(), Scale::ONE);
    assert_eq!(
        found,
        [plain("model.a.bias"), ("model.a.weight".to_owned(), Scale::Tensor(0.5)), plain("other.weight")]
    );
}

/// Of a component nobody reads, as when another file is given for it.
#[test]
fn what_is_wrong_with_other_components_does_not_matter() {
    let file = [
        weight("text.a.weight"),
        scale("text.a.weight_scale", &[], &[f32::NAN]),
        scale("text.b.weight_scale", &[], &[1.0]),
        weight("model.a.weight"),
        scale("model.a.weight_scale", &[], &[0.5]),
    ];
    let found = opened_part(&file, "model.").unwrap();
    let names: Vec<_> = found.iter().map(|(name, tensor)| (name.as_str(), tensor.scale.clone())).collect();
    assert_eq!(names, [("model.a.weight", Scale::Tensor(0.5))]);
    let error = opened_part(&file, "text.").unwrap_err().to_string();
    assert!(error.contains("tensor `text."), "{error}");
}

/// The mark of a file counts for each of its components, that of a component for no other.
#[test]
fn marks_are_about_what_is_below_them() {
    for (name, prefix, is_refused) in [
        ("scaled_fp8", "model.diffusion_model.", true),
        ("model.diffusion_model.scaled_fp8", "model.diffusion_model.", true),
        ("text.scaled_fp8", "model.diffusion_model.", false),
    ] {
        let found = opened_part(&[mark(name), weight("model.diffusion_model.a.weight")], prefix);
        let error = found.err().map(|error| error.to_string());
        let expected = format!(
            "fp8.safetensors: tensor `model.diffusion_model.a.weight` has no scale, and `{name}` says that it has one"
        );
        assert_eq!(error, is_refused.then_some(expected));
    }
}

/// Names of other models that look like scales.
#[test]
fn files_without_fp8_are_left_alone() {
    let names = ["a.weight", "a.weight_scale", "scaled_fp8"].map(|name| scale(name, &[1], &[f32::NAN]));
    assert_eq!(opened(&names).unwrap().len(), 3);
}

#[test]
fn odd_scales_are_refused() {
    for (values, shown) in
        [([f32::NAN; 3], "NaN"), ([1.0, 0.0, 1.0], "0"), ([1.0, 1.0, -2.0], "-2"), ([f32::INFINITY; 3], "inf")]
    {
        let found = fault(&[weight("a.weight"), scale("a.weight_scale", &[3, 1], &values)]);
        assert_eq!(found, format!("tensor `a.weight_scale` holds {shown}; a scale is a finite number above 0"));
    }
    for (shape, count) in [([2].as_slice(), 2), (&[1, 3], 3), (&[3, 2], 6), (&[0], 0), (&[4], 4)] {
        let found = fault(&[weight("a.weight"), scale("a.weight_scale_inv", shape, &vec![1.0; count])]);
        let expected = format!(
            "tensor `a.weight_scale_inv` has shape {shape:?}; read is a scale of one number, or of one for each of the 3 \
             rows of its weight, and none of blocks"
        );
        assert_eq!(found, expected);
    }
    let exponents = Stored { name: "a.weight_scale", dtype: Dtype::F8_E8M0, shape: vec![3], bytes: vec![127; 3] };
    let found = fault(&[weight("a.weight"), exponents]);
    assert!(found.starts_with("tensor `a.weight_scale` is stored as F8_E8M0 and asked for as F32"), "{found}");
    let found =
        fault(&[weight("a.weight"), scale("a.weight_scale", &[], &[1.0]), scale("a.scale_weight", &[], &[1.0])]);
    assert!(found.ends_with("is a second scale of `a.weight`"), "{found}");
}

#[test]
fn scales_of_nothing_are_refused() {
    for name in ["b.weight_scale", "b.input_scale", "b.comfy_quant"] {
        let found = fault(&[weight("a.weight"), scale(name, &[], &[1.0])]);
        assert_eq!(found, format!("tensor `{name}` belongs to `b.weight`, which is not there"));
    }
    let wide = scale("b.weight", &[1], &[1.0]);
    let found = fault(&[weight("a.weight"), wide, scale("b.weight_scale", &[], &[1.0])]);
    let expected = "tensor `b.weight_scale` belongs to `b.weight`, which is stored as F32; scaled weights are read as \
                    F8_E4M3 and F8_E5M2 only";
    assert_eq!(found, expected);
}

#[test]
fn scales_that_are_promised_are_there() {
    let scaled = |name: &'static str| scale(name, &[], &[1.0]);
    let found = fault(&[mark("scaled_fp8"), weight("a.weight"), scaled("a.scale_weight"), weight("b.weight")]);
    assert_eq!(found, "tensor `b.weight` has no scale, and `scaled_fp8` says that it has one");
    let found = fault(&[weight("a.weight"), text("a.comfy_quant", r#"{"format": "float8_e4m3fn"}"#)]);
    assert_eq!(found, "tensor `a.weight` has no scale, and `a.comfy_quant` says that it has one");
    // Of biases and convolutions nothing is promised.
    let kernel = Stored { shape: vec![3, 2, 1, 1], ..weight("b.weight") };
    opened(&[mark("scaled_fp8"), weight("a.weight"), scaled("a.scale_weight"), kernel, weight("a.bias")]).unwrap();
}

#[test]
fn descriptions_of_something_else_are_refused() {
    for (description, expected) in [
        (r#"{"format": "mxfp8"}"#, "says that its weight is mxfp8; read are float8_e4m3fn, "),
        (r#"{"format": "float8_e5m2"}"#, "says that its weight is float8_e5m2, which is stored as F8_E4M3"),
        (r#"{"format": "float8_e4m3fn", "convrot": true}"#, "says that its weight is rotated (convrot)"),
        (r#"{"group_size": 64}"#, "is no description of a layer's format: missing field `format`"),
        ("float8", "is no description of a layer's format: "),
        (&"[".repeat(5000), "is no description of a layer's format: EOF"),
    ] {
        let found =
            fault(&[weight("a.weight"), scale("a.weight_scale", &[], &[1.0]), text("a.comfy_quant", description)]);
        assert!(found.contains(&format!("tensor `a.comfy_quant` {expected}")), "{found}");
    }
}
