//! Turning neighbouring pairs of channels by angles. candle's operator on all devices.

use candle_core::{DType, Result, Tensor};

/// Turns `[rows, heads, tokens, head size]`, contiguous, by angles of which `cosines` and `sines` are
/// `[tokens, head size / 2]`, f32. In f32 whatever the dtype.
pub(crate) fn rotate_pairs(x: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
    candle_nn::rotary_emb::rope_i(&x.to_dtype(DType::F32)?, cosines, sines)?.to_dtype(x.dtype())
}

#[cfg(test)]
mod tests {
    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let (x, angles) = (sines((2, 3, 4, 6), 0.1), sines((4, 3), 0.4));
        let (cosine, sine) = (angles.cos().unwrap(), angles.sin().unwrap());
        let (cosines, sines) = (wide(&cosine), wide(&sine));
        let pairs = wide(&x);
        let pairs = pairs.chunks(2).enumerate();
        let defined = pairs.flat_map(|(index, pair)| {
            // All rows and heads have the same tokens.
            let (cosine, sine) = (cosines[index % 12], sines[index % 12]);
            [pair[0] * cosine - pair[1] * sine, pair[0] * sine + pair[1] * cosine]
        });
        assert_close(&rotate_pairs(&x, &cosine, &sine).unwrap(), &defined.collect::<Vec<_>>());
    }
}
