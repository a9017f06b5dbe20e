//! The relative distance between two residuals, rounded as PyTorch rounds it.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_contexts/cache_manager.py`, lines 607-619 (`similarity`).

use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};

use crate::magnitudes::Number;

/// `mean|reference - current| / (mean|reference| + epsilon)` over all elements, while the device still has
/// the two means.
///
/// Differences, means and the quotient are rounded to the tensors' dtype, the means themselves are
/// accumulated in f32; in f16 and bf16 the result is therefore as coarse as that dtype, and
/// decisions equal the reference's. NaN for 0/0, infinity for x/0.
///
/// The tensors are reduced one lane at a time and in the same order whichever others share the forward; only the
/// copy of the means is shared, and a copy rounds nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProposedDistance {
    dtype: DType,
    epsilon: f32,
}

impl ProposedDistance {
    /// The distance to compute, and the two means, which [`Self::distance`] wants back.
    pub(crate) fn new(reference: &Tensor, current: &Tensor, epsilon: f32) -> (Self, [Number; 2]) {
        let means = [Number::mean_of_differences(current, reference), Number::mean(reference)];
        (Self { dtype: reference.dtype(), epsilon }, means)
    }

    /// The distance, from the means' values.
    pub(crate) fn distance(self, means: &[f32]) -> Result<f64> {
        let &[difference, magnitude] = means else {
            candle_core::bail!("a distance is made of two means, not of {}", means.len())
        };
        let Self { dtype, epsilon } = self;
        let difference = round_to(dtype, difference);
        let magnitude = round_to(dtype, round_to(dtype, magnitude) + epsilon);
        Ok(f64::from(round_to(dtype, difference / magnitude)))
    }
}

fn round_to(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::BF16 => bf16::from_f32(value).to_f32(),
        DType::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::read_back::read_back;

    fn relative_distance(reference: &Tensor, current: &Tensor) -> Result<f64> {
        let (proposed, means) = ProposedDistance::new(reference, current, 0.0);
        proposed.distance(&read_back(&means)?)
    }

    fn distance(reference: &[f32], current: &[f32], dtype: DType) -> f64 {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        relative_distance(&tensor(reference), &tensor(current)).unwrap()
    }

    /// Pairs of every dtype, with torch's own result of the formula.
    #[test]
    fn rounding_equals_torch() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/cache/rounded_distances");
        let tensors = candle_core::safetensors::load(format!("{folder}.safetensors"), &Device::Cpu).unwrap();
        let json = std::fs::read_to_string(format!("{folder}.json")).unwrap();
        let groups: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
        let mut compared = 0;
        for (name, group) in groups {
            let part = |role: &str, index| tensors[&format!("{name}.{role}")].get(index).unwrap();
            for (index, expected) in group["distances"].as_array().unwrap().iter().enumerate() {
                let found = relative_distance(&part("previous", index), &part("current", index)).unwrap();
                let expected = match expected.as_str() {
                    Some(word) => word.parse().unwrap(),
                    None => expected.as_f64().unwrap(),
                };
                // In f32 the order of summation shows; the half precisions round it away.
                let tolerance = if name.starts_with("f32") { 2e-6 * expected.abs() } else { 0.0 };
                let equal = found == expected || (found.is_nan() && expected.is_nan());
                assert!(equal || (found - expected).abs() <= tolerance, "{name} {index}: {found} for {expected}");
                compared += 1;
            }
        }
        assert!(compared > 300);
    }

    #[test]
    fn the_denominator_is_the_reference() {
        assert_eq!(distance(&[4.0, -4.0], &[3.0, -5.0], DType::F32), 0.25);
        assert_eq!(distance(&[1.0, 1.0], &[4.0, 4.0], DType::F32), 3.0);
    }

    #[test]
    fn zero_references_give_nan_or_infinity() {
        assert!(distance(&[0.0, 0.0], &[0.0, 0.0], DType::F32).is_nan());
        assert_eq!(distance(&[0.0, 0.0], &[1.0, 0.0], DType::F32), f64::INFINITY);
    }

    #[test]
    fn half_precision_quotients_are_rounded() {
        let distance = distance(&[3.0, 3.0], &[2.0, 2.0], DType::BF16);
        assert_eq!(distance, f64::from(bf16::from_f32(1.0 / 3.0).to_f32()));
    }
}
