//! The one way in which numbers come from the device to the host while images are denoised.
//!
//! Such a copy waits for everything the device has been given to do, so it is the most expensive small thing a
//! forward does. Whatever a forward has to know on the host therefore comes in one copy for all of its
//! images ([`run_blocks`](crate::run_blocks) says how), and copies are counted, so that a test can hold a
//! forward to it. The count cannot be bypassed: clippy.toml forbids candle's own ways to the host
//! everywhere else, but for places that say why they are in no forward.

use std::cell::Cell;

use candle_core::{Result, Tensor};

use crate::magnitudes::{Number, read_from_gpu};

thread_local! {
    static COPIES: Cell<usize> = const { Cell::new(0) };
}

/// Copies made by this thread so far.
pub fn copies() -> usize {
    COPIES.get()
}

/// Whether each of the tensors, all on one device, is free of NaN and infinity; one copy for all.
///
/// # Errors
/// If a tensor operation fails.
pub fn all_finite(tensors: &[&Tensor]) -> Result<Vec<bool>> {
    let sums: Vec<_> = tensors.iter().map(|tensor| Number::sum(tensor)).collect();
    Ok(read_back(&sums)?.into_iter().map(f32::is_finite).collect())
}

/// Numbers that are all on one device, in one copy; without numbers there is none.
#[allow(clippy::disallowed_methods, reason = "this is the place that counts them")]
pub(crate) fn read_back(numbers: &[Number]) -> Result<Vec<f32>> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    COPIES.set(COPIES.get() + 1);
    if let Some(values) = read_from_gpu(numbers)? {
        return Ok(values);
    }
    let scalars = numbers.iter().map(Number::scalar).collect::<Result<Vec<_>>>()?;
    Tensor::stack(&scalars, 0)?.to_vec1()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn all_numbers_come_in_one_copy_and_none_in_no_copy() {
        let before = copies();
        let scalars =
            [1.5f32, -0.0, f32::INFINITY].map(|value| Number::Scalar(Tensor::new(value, &Device::Cpu).unwrap()));
        assert_eq!(read_back(&scalars).unwrap(), [1.5, -0.0, f32::INFINITY]);
        assert_eq!(copies() - before, 1);
        assert!(read_back(&[]).unwrap().is_empty());
        assert_eq!(copies() - before, 1);
    }

    #[test]
    fn one_bad_value_is_enough() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let tensors = [tensor(&[1.0, -1.0]), tensor(&[0.0, f32::NAN]), tensor(&[f32::NEG_INFINITY, 1.0])];
        assert_eq!(all_finite(&tensors.each_ref()).unwrap(), [true, false, false]);
    }
}
