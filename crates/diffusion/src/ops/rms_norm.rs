//! Root mean square norm, taken in f32. On the CPU and on GPUs a kernel of this project, on other devices
//! candle's operators.

use candle_core::{D, DType, Result, Tensor};

use super::cuda::has_kernels;
use super::norm_and_turn::norm_and_turn;

/// Over the last dimension, which `weight` has the size of. What is normed is rounded to the dtype of `x` before
/// it is weighted, as transformers and diffusers do.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if x.device().is_cpu() || has_kernels(x) {
        return norm_and_turn(x, Some((weight, eps)), None);
    }
    let wide = x.to_dtype(DType::F32)?;
    let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.to_dtype(x.dtype())?.broadcast_mul(weight)
}

#[cfg(test)]
mod tests {
    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let (x, weight) = (sines((2, 3, 6), 0.1), sines(6, 0.4));
        let weights = wide(&weight);
        let defined = wide(&x)
            .chunks(6)
            .flat_map(|x| {
                let root = (x.iter().map(|x| x * x).sum::<f64>() / 6.0 + 1e-6).sqrt();
                x.iter().zip(&weights).map(|(x, weight)| x / root * weight).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>();
        assert_close(&rms_norm(&x, &weight, 1e-6).unwrap(), &defined);
    }
}
