//! Heads of a sequence as attention takes them: normed and turned; and those of two sequences in one tensor. On GPUs a kernel of
//! this project writes each to its place, on other devices they are joined when they are made.

#[cfg(feature = "cuda")]
use afterimage_cuda_kernels::Pairs;
use candle_core::{Result, Tensor};

#[cfg(feature = "cuda")]
use super::cuda::has_kernels;
#[cfg(feature = "cuda")]
use super::norm_and_turn::{Change, joined};
use super::rms_norm::rms_norm;
use super::rotary::{norm_and_rotate_pairs, rotate_pairs};

/// Heads, and what is to become of them.
#[derive(Debug, Clone)]
pub(crate) struct PlannedHeads {
    /// `[rows, tokens, heads, head size]`; may be a part of longer tokens.
    pub(crate) heads: Tensor,
    /// Weight and epsilon of a root mean square norm of each.
    pub(crate) norm: Option<(Tensor, f64)>,
    /// Cosines and sines that neighbouring channels are turned by, as [`rotate_pairs`] takes them.
    pub(crate) turn: Option<(Tensor, Tensor)>,
}

impl PlannedHeads {
    /// `[rows, tokens, heads, head size]`
    pub(crate) fn made(&self) -> Result<Tensor> {
        let Self { heads, norm, turn } = self;
        match (norm, turn) {
            (Some((weight, eps)), Some((cosines, sines))) => {
                norm_and_rotate_pairs(heads, (weight, *eps), cosines, sines)
            }
            (Some((weight, eps)), None) => rms_norm(heads, weight, *eps),
            (None, Some((cosines, sines))) => rotate_pairs(heads, cosines, sines),
            (None, None) => Ok(heads.clone()),
        }
    }

    /// These tokens, and those of another sequence behind them: `[rows, tokens of both, heads, head size]`.
    pub(crate) fn followed_by(&self, other: &Self) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if has_kernels(&self.heads) {
            return joined([(&self.heads, self.change()?), (&other.heads, other.change()?)]);
        }
        Tensor::cat(&[self.made()?.contiguous()?, other.made()?.contiguous()?], 1)
    }

    #[cfg(feature = "cuda")]
    fn change(&self) -> Result<Change> {
        let norm = self.norm.as_ref().map(|(weight, eps)| (weight, *eps));
        let turn = self.turn.as_ref().map(|(cosines, sines)| (cosines, sines, Pairs::Neighbours));
        Change::new(self.heads.dtype(), norm, turn)
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::{sines, wide};
    use super::*;

    #[test]
    fn sequences_are_joined_row_by_row() {
        // Parts of products, as projections give them.
        let part = |tokens: usize| sines((2, tokens, 6, 4), tokens as f64).narrow(2, 2, 2).unwrap();
        let angles = sines((3, 2), 0.4);
        let first = PlannedHeads {
            heads: part(3),
            norm: Some((sines(4, 0.7), 1e-6)),
            turn: Some((angles.cos().unwrap(), angles.sin().unwrap())),
        };
        let second = PlannedHeads { heads: part(5), norm: None, turn: None };
        let joined = first.followed_by(&second).unwrap();
        assert_eq!(joined.dims(), [2, 8, 2, 4]);
        for row in 0..2 {
            let of = |x: &Tensor| wide(&x.get(row).unwrap());
            let apart = [of(&first.made().unwrap()), of(&second.heads)].concat();
            assert_eq!(of(&joined), apart);
        }
        assert_ne!(wide(&first.made().unwrap()), wide(&first.heads));
    }
}
