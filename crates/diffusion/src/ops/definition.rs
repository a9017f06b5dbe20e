//! What tests of operators share: values, and the comparison with a definition in f64.

use candle_core::{Device, Shape, Tensor};

/// Values between -1 and 1 without a pattern that a mistake could keep.
pub(super) fn sines(shape: impl Into<Shape>, phase: f64) -> Tensor {
    let shape = shape.into();
    let indices = Tensor::arange(0f32, shape.elem_count() as f32, &Device::Cpu).unwrap();
    indices.affine(0.731, phase).unwrap().sin().unwrap().reshape(shape).unwrap()
}

/// All values in f64.
pub(super) fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// Asserts that values are the defined ones but for a few roundings of f32.
#[track_caller]
pub(super) fn assert_close(found: &Tensor, defined: &[f64]) {
    let found = wide(found);
    assert_eq!(found.len(), defined.len());
    for (index, (found, defined)) in found.iter().zip(defined).enumerate() {
        assert!((found - defined).abs() <= 4e-6 * (1.0 + defined.abs()), "value {index}: {found} for {defined}");
    }
}
