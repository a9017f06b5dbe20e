//! Rotary position embeddings over several axes: the channels of a head are shared out among the axes,
//! and each axis turns its neighbouring pairs of channels by angles that grow with the position.
//!
//! Follows diffusers 0.42.1:
//!
//! * `get_1d_rotary_pos_embed` (lines 885-949) and `apply_rotary_emb` (952-1006):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L885>
//! * `FluxPosEmbed` (lines 500-526):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux.py#L500>
//! * `QwenEmbedRope` (lines 199-322):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_qwenimage.py#L199>

use candle_core::{Device, Result, Tensor};

use super::norm::RmsNorm;
use crate::ops::rotary::{norm_and_rotate_pairs, rotate_halves, rotate_pairs};

/// Longest period of the angles in most models.
pub(crate) const ROPE_THETA: f64 = 10_000.0;

/// The angles of a sequence of tokens, the same in every row or each row's own.
#[derive(Debug, Clone)]
pub(crate) struct RotaryPositions {
    /// `[tokens, head size / 2]` or `[rows, tokens, head size / 2]`, f32.
    cosines: Tensor,
    sines: Tensor,
}

impl RotaryPositions {
    /// For tokens at these places, one coordinate per axis; `channels` are those of a head that each axis
    /// has, `theta` their longest period.
    pub(crate) fn new<const AXES: usize>(
        places: &[[usize; AXES]],
        channels: &[usize; AXES],
        theta: f64,
        device: &Device,
    ) -> Result<Self> {
        // As the reference: f64 until sine and cosine are taken.
        let angles = places.iter().flat_map(|place| {
            place.iter().zip(channels).flat_map(|(coordinate, channels)| {
                (0..channels / 2)
                    .map(|pair| *coordinate as f64 / theta.powf(2.0 * pair as f64 / *channels as f64))
                    .collect::<Vec<_>>()
            })
        });
        Self::of_angles(&angles.collect::<Vec<_>>(), places.len(), device)
    }

    /// For tokens that may stand between whole numbers, or before 0. The reference computes the angles in f32 here.
    pub(crate) fn between<const AXES: usize>(
        places: &[[f32; AXES]],
        channels: &[usize; AXES],
        device: &Device,
    ) -> Result<Self> {
        let angles = places.iter().flat_map(|place| {
            place.iter().zip(channels).flat_map(|(coordinate, channels)| {
                (0..channels / 2)
                    .map(|pair| {
                        let exponent = 2.0 * pair as f32 / *channels as f32;
                        f64::from(coordinate * (1.0 / ROPE_THETA.powf(f64::from(exponent)) as f32))
                    })
                    .collect::<Vec<_>>()
            })
        });
        Self::of_angles(&angles.collect::<Vec<_>>(), places.len(), device)
    }

    /// Those of all tokens, one token after the other.
    #[allow(clippy::disallowed_methods, reason = "in no step: the model is being loaded")]
    fn of_angles(angles: &[f64], tokens: usize, device: &Device) -> Result<Self> {
        let shape = (tokens, angles.len() / tokens.max(1));
        let table = |function: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| function(*angle) as f32).collect();
            Tensor::from_vec(values, shape, device)
        };
        Ok(Self { cosines: table(f64::cos)?, sines: table(f64::sin)? })
    }

    /// With angles of which these are cosines and sines, `[tokens, head size / 2]` or `[rows, tokens, head size / 2]`, f32.
    pub(crate) fn of_rows(cosines: Tensor, sines: Tensor) -> Self {
        Self { cosines, sines }
    }

    /// Of so many tokens of a row from `first` on; copied where rows have angles of their own.
    pub(crate) fn of_tokens(&self, first: usize, count: usize) -> Result<Self> {
        let part = |table: &Tensor| table.narrow(table.rank() - 2, first, count)?.contiguous();
        Ok(Self { cosines: part(&self.cosines)?, sines: part(&self.sines)? })
    }

    /// With tables that `of_rows` makes of those of all rows, where rows have their own.
    pub(super) fn map_rows(&self, of_rows: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        if self.cosines.rank() == 2 {
            return Ok(self.clone());
        }
        Ok(Self { cosines: of_rows(&self.cosines)?, sines: of_rows(&self.sines)? })
    }

    /// Turns `[rows, tokens, heads, head size]`; in f32 whatever the dtype. Pairs are neighbours
    /// (interleaved), not the two halves of a head as in most language models.
    pub(crate) fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        rotate_pairs(x, &self.cosines, &self.sines)
    }

    /// The norm of `[rows, tokens, heads, head size]`, if there is one, and [`Self::rotate`].
    pub(crate) fn norm_and_rotate(&self, x: &Tensor, norm: Option<&RmsNorm>) -> Result<Tensor> {
        match norm {
            Some(norm) => norm_and_rotate_pairs(x, norm.parameters(), &self.cosines, &self.sines),
            None => self.rotate(x),
        }
    }

    /// Cosines and sines.
    pub(crate) fn tables(&self) -> (&Tensor, &Tensor) {
        (&self.cosines, &self.sines)
    }
}

/// The angles of tokens that are counted from 0, for pairs of the two halves of a head, as most language models turn them.
#[derive(Debug)]
pub(crate) struct HalfRotaryPositions {
    /// `[tokens, head size / 2]`, f32.
    cosines: Tensor,
    sines: Tensor,
}

impl HalfRotaryPositions {
    #[allow(clippy::disallowed_methods, reason = "in no step: the model is being loaded")]
    pub(crate) fn new(tokens: usize, head_size: usize, theta: f64, device: &Device) -> Result<Self> {
        // Rounded to f32 where transformers rounds.
        let frequency = |pair: usize| 1.0 / theta.powf(f64::from(2.0 * pair as f32 / head_size as f32)) as f32;
        let frequencies: Vec<f32> = (0..head_size / 2).map(frequency).collect();
        let angles = (0..tokens).flat_map(|token| frequencies.iter().map(move |frequency| token as f32 * frequency));
        let angles: Vec<f32> = angles.collect();
        let table = |function: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| function(f64::from(*angle)) as f32).collect();
            Tensor::from_vec(values, (tokens, head_size / 2), device)
        };
        Ok(Self { cosines: table(f64::cos)?, sines: table(f64::sin)? })
    }

    /// Turns `[rows, tokens, heads, head size]`; in f32 whatever the dtype.
    pub(crate) fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        rotate_halves(x, &self.cosines, &self.sines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_turned_by_the_position_on_their_axis() {
        let positions = RotaryPositions::new(&[[0, 0], [2, 1]], &[2, 4], ROPE_THETA, &Device::Cpu).unwrap();
        let x = Tensor::new(&[[[[1f32, 0.0, 1.0, 0.0, 1.0, 0.0]]; 2]], &Device::Cpu).unwrap();
        let turned = positions.rotate(&x).unwrap().squeeze(2).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(turned[0], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], "the first position turns nothing");
        let (cosines, sines) = positions.tables();
        let twice = |table: &Tensor| Tensor::stack(&[table, table], 0).unwrap();
        let of_rows = RotaryPositions::of_rows(twice(cosines), twice(sines));
        let both = of_rows.rotate(&Tensor::cat(&[&x, &x], 0).unwrap()).unwrap();
        let second = both.get(1).unwrap().squeeze(1).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(second, turned, "rows with angles of their own");
        // Axis 0 has one pair, axis 1 two: the second is a hundred times slower.
        let expected = [2f32, 1.0, 0.01].map(|angle| [angle.cos(), angle.sin()]).concat();
        for (found, expected) in turned[1].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    #[test]
    fn streams_are_turned_by_their_part_of_the_positions() {
        let positions = RotaryPositions::new(&[[0, 1], [2, 3], [4, 5]], &[2, 4], ROPE_THETA, &Device::Cpu).unwrap();
        let (cosines, sines) = positions.tables();
        let of_rows = RotaryPositions::of_rows(cosines.unsqueeze(0).unwrap(), sines.unsqueeze(0).unwrap());
        let x = Tensor::arange(0f32, 36.0, &Device::Cpu).unwrap().reshape((1, 3, 2, 6)).unwrap();
        let values = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let together = values(positions.rotate(&x).unwrap());
        for positions in [positions, of_rows] {
            let parts = [(0, 1), (1, 2)].map(|(first, count)| {
                let x = x.narrow(1, first, count).unwrap();
                values(positions.of_tokens(first, count).unwrap().rotate(&x).unwrap())
            });
            assert_eq!(parts.concat(), together);
        }
    }

    #[test]
    fn negative_positions_turn_the_other_way() {
        let turned = |positions: RotaryPositions| {
            let x = Tensor::new(&[[[[1f32, 0.0, 1.0, 0.0, 1.0, 0.0]]; 2]], &Device::Cpu).unwrap();
            positions.rotate(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let unsigned = turned(RotaryPositions::new(&[[0, 3], [2, 1]], &[2, 4], ROPE_THETA, &Device::Cpu).unwrap());
        let whole = turned(RotaryPositions::between(&[[0.0, 3.0], [2.0, 1.0]], &[2, 4], &Device::Cpu).unwrap());
        let back = turned(RotaryPositions::between(&[[0.0, -3.0], [-2.0, -1.0]], &[2, 4], &Device::Cpu).unwrap());
        for (index, ((a, b), c)) in unsigned.iter().zip(&whole).zip(&back).enumerate() {
            let mirrored = if index % 2 == 0 { *c } else { -c };
            assert!((a - b).abs() < 1e-6 && (b - mirrored).abs() < 1e-6, "{index}: {a}, {b}, {c}");
        }
    }
}
