//! Turning pairs of channels by angles: on GPUs, and neighbouring ones on the CPU, by a kernel of this project; on other devices,
//! and pairs of the two halves of a head on the CPU, by candle's operators.

use afterimage_cuda_kernels::Pairs;
use candle_core::{DType, Result, Tensor};

use super::cuda::has_kernels;
use super::norm_and_turn::norm_and_turn;
use super::rms_norm::rms_norm;

/// Turns `[rows, tokens, heads, head size]` by angles of which `cosines` and `sines` are `[tokens, head size / 2]`, or each
/// row's own, `[rows, tokens, head size / 2]`, f32. In f32 whatever the dtype.
pub(crate) fn rotate_pairs(x: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() || has_kernels(x) {
        return norm_and_turn(x, None, Some((cosines, sines, Pairs::Neighbours)));
    }
    let heads_first = x.transpose(1, 2)?.contiguous()?.to_dtype(DType::F32)?;
    candle_nn::rotary_emb::rope_i(&heads_first, cosines, sines)?.to_dtype(x.dtype())?.transpose(1, 2)
}

/// The same with pairs of a channel of the first half of a head and one of the second.
pub(crate) fn rotate_halves(x: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
    if has_kernels(x) {
        return norm_and_turn(x, None, Some((cosines, sines, Pairs::Halves)));
    }
    let heads_first = x.transpose(1, 2)?.contiguous()?.to_dtype(DType::F32)?;
    candle_nn::rotary_emb::rope(&heads_first, cosines, sines)?.to_dtype(x.dtype())?.transpose(1, 2)
}

/// [`rms_norm`] and [`rotate_pairs`], in one pass where there is a kernel.
pub(crate) fn norm_and_rotate_pairs(
    x: &Tensor,
    (weight, eps): (&Tensor, f64),
    cosines: &Tensor,
    sines: &Tensor,
) -> Result<Tensor> {
    if x.device().is_cpu() || has_kernels(x) {
        return norm_and_turn(x, Some((weight, eps)), Some((cosines, sines, Pairs::Neighbours)));
    }
    rotate_pairs(&rms_norm(x, weight, eps)?, cosines, sines)
}

#[cfg(test)]
mod tests {
    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let (x, angles) = (sines((2, 4, 3, 6), 0.1), sines((4, 3), 0.4));
        let (cosine, sine) = (angles.cos().unwrap(), angles.sin().unwrap());
        let (cosines, sines) = (wide(&cosine), wide(&sine));
        let pairs = wide(&x);
        let pairs = pairs.chunks(2).enumerate();
        let defined = pairs.flat_map(|(index, pair)| {
            // Of four tokens of three heads of three pairs; all rows and heads have the same tokens.
            let angle = index / 9 % 4 * 3 + index % 3;
            let (cosine, sine) = (cosines[angle], sines[angle]);
            [pair[0] * cosine - pair[1] * sine, pair[0] * sine + pair[1] * cosine]
        });
        assert_close(&rotate_pairs(&x, &cosine, &sine).unwrap(), &defined.collect::<Vec<_>>());
    }

    #[test]
    fn norm_and_turn_are_those_of_each() {
        let (x, weight, angles) = (sines((2, 4, 3, 6), 0.1), sines(6, 0.7), sines((4, 3), 0.4));
        let (cosine, sine) = (angles.cos().unwrap(), angles.sin().unwrap());
        let normed = rms_norm(&x, &weight, 1e-6).unwrap();
        let found = norm_and_rotate_pairs(&x, (&weight, 1e-6), &cosine, &sine).unwrap();
        assert_eq!(wide(&found), wide(&rotate_pairs(&normed, &cosine, &sine).unwrap()));
    }

    #[test]
    fn rows_are_turned_by_their_own_angles_where_they_have_some() {
        // As parts of a product are: tokens further apart than their heads are long.
        let x = sines((2, 4, 9, 6), 0.1).narrow(2, 3, 3).unwrap();
        let (weight, angles) = (sines(6, 0.7), sines((2, 4, 3), 0.4));
        let (cosine, sine) = (angles.cos().unwrap(), angles.sin().unwrap());
        let turned = |x: &Tensor, cosine: &Tensor, sine: &Tensor| {
            norm_and_rotate_pairs(x, (&weight, 1e-6), cosine, sine).unwrap()
        };
        let both = turned(&x, &cosine, &sine);
        for row in 0..2 {
            let alone = turned(&x.narrow(0, row, 1).unwrap(), &cosine.get(row).unwrap(), &sine.get(row).unwrap());
            assert_eq!(wide(&both.narrow(0, row, 1).unwrap()), wide(&alone), "row {row}");
        }
    }

    #[test]
    fn halves_are_turned_like_pairs() {
        let (x, angles) = (sines((2, 4, 3, 6), 0.1), sines((4, 3), 0.4));
        let (cosine, sine) = (angles.cos().unwrap(), angles.sin().unwrap());
        let halves_to_pairs = |x: &Tensor| x.reshape((2, 4, 3, 2, 3)).unwrap().transpose(3, 4).unwrap();
        let pairs = halves_to_pairs(&x).reshape((2, 4, 3, 6)).unwrap();
        let expected = wide(&rotate_pairs(&pairs, &cosine, &sine).unwrap());
        let turned = rotate_halves(&x, &cosine, &sine).unwrap().contiguous().unwrap();
        assert_close(&halves_to_pairs(&turned).reshape((2, 4, 3, 6)).unwrap(), &expected);
    }
}
