//! Layer norm and its modulation (adaLN). candle's operators on all devices.

use candle_core::{Result, Tensor};

/// Weight and bias of a layer norm, each of the size of the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNormParameters {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) eps: f32,
}

/// Over the last dimension.
pub(crate) fn layer_norm(x: &Tensor, parameters: &LayerNormParameters) -> Result<Tensor> {
    let LayerNormParameters { weight, bias, eps } = parameters;
    candle_nn::ops::layer_norm(&x.contiguous()?, weight, bias, *eps)
}

/// [`layer_norm`] and [`modulate`].
pub(crate) fn modulated_layer_norm(
    x: &Tensor,
    parameters: &LayerNormParameters,
    scale: &Tensor,
    shift: &Tensor,
) -> Result<Tensor> {
    modulate(&layer_norm(x, parameters)?, scale, shift)
}

/// `(1 + scale) * x + shift` with `x` `[rows, tokens, hidden]` and the others `[rows, hidden]`: a modulation of zeros,
/// with which adaLN-Zero begins training, changes nothing.
pub(crate) fn modulate(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale + 1.0)?.unsqueeze(1)?)?.broadcast_add(&shift.unsqueeze(1)?)
}

#[cfg(test)]
mod tests {
    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    const SIZE: usize = 6;
    const EPS: f32 = 1e-6;

    fn defined_norm(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / SIZE as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / SIZE as f64;
        let normed = x.iter().map(|x| (x - mean) / (variance + f64::from(EPS)).sqrt());
        normed.zip(weight.iter().zip(bias)).map(|(x, (weight, bias))| x * weight + bias).collect()
    }

    #[test]
    fn norms_equal_the_definition() {
        let (x, weight, bias) = (sines((2, 3, SIZE), 0.1), sines(SIZE, 0.4), sines(SIZE, 0.7));
        let (weights, biases) = (wide(&weight), wide(&bias));
        let found = layer_norm(&x, &LayerNormParameters { weight, bias, eps: EPS }).unwrap();
        let defined = wide(&x).chunks(SIZE).map(|x| defined_norm(x, &weights, &biases)).collect::<Vec<_>>().concat();
        assert_close(&found, &defined);
    }

    #[test]
    fn rows_are_modulated_by_their_own_scale_and_shift() {
        let (x, scale, shift) = (sines((2, 3, SIZE), 0.1), sines((2, SIZE), 0.4), sines((2, SIZE), 0.7));
        let (scales, shifts) = (wide(&scale), wide(&shift));
        let of = |values: &[f64], index: usize| values[index / (3 * SIZE) * SIZE + index % SIZE];
        let found = modulate(&x, &scale, &shift).unwrap();
        let values = wide(&x).into_iter().enumerate();
        let defined: Vec<_> = values.map(|(index, x)| (1.0 + of(&scales, index)) * x + of(&shifts, index)).collect();
        assert_close(&found, &defined);
    }
}
