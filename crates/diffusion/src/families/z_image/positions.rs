//! Where tokens are: captions on the first axis from 1 on, pictures behind their caption and at their row and column.
//!
//! Follows diffusers 0.42.1, `RopeEmbedder` (lines 303-349), `_pad_with_ids` (559-594) and `patchify_and_embed` (596-640):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_z_image.py#L303>
//!
//! Rows have captions of different lengths, so each has positions of its own. Tokens that fill a picture up to a multiple
//! of 32 are at 0, and those that fill a row up to the length of others have no position: their queries and keys are zeros.

use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Result, Tensor};
use lru::LruCache;

use super::config::{AXES, TransformerConfig};
use crate::layers::RotaryPositions;

/// Sequences are filled up to multiples of this.
const MULTIPLE: usize = 32;
/// Added to scores of tokens that fill a row up to the length of others: the softmax makes 0 of it in every dtype.
const NOWHERE_BIAS: f32 = -30_000.0;
/// Sets of rows whose places are kept: those of the batches that take turns.
const KEPT: std::num::NonZeroUsize = std::num::NonZeroUsize::new(2).expect("not zero");

/// Tokens of a sequence with those that fill it up.
pub(super) fn filled(tokens: usize) -> usize {
    tokens.next_multiple_of(MULTIPLE)
}

/// Cosines and sines of all places, axis by axis.
#[derive(Debug)]
pub(super) struct Places {
    /// `[places + 1, channels / 2]`, f32, each; the last place is nowhere: zeros.
    axes: Vec<[Tensor; 2]>,
    /// Per axis.
    nowhere: [u32; AXES],
    /// Of the last rows.
    known: Mutex<LruCache<RowShapes, RowPlaces>>,
}

/// Rows and columns of pictures, and tokens of every row's caption.
type RowShapes = ((usize, usize), Vec<usize>);

/// Where the tokens of some rows are.
#[derive(Debug, Clone)]
pub(super) struct RowPlaces {
    /// Of pictures and captions.
    pub(super) all: RotaryPositions,
    /// Of pictures alone.
    pub(super) pictures: RotaryPositions,
    /// `[rows, 1, 1, tokens]`, f32: added to scores of attention, where rows are of different lengths.
    pub(super) bias: Option<Tensor>,
}

impl Places {
    #[allow(clippy::disallowed_methods, reason = "in no step: the weights are being loaded")]
    pub(super) fn new(config: &TransformerConfig, device: &Device) -> Result<Self> {
        let axes = config.axes_dims.iter().zip(&config.axes_lens).map(|(channels, places)| {
            let frequency = |pair: usize| 1.0 / config.rope_theta.powf(2.0 * pair as f64 / *channels as f64);
            let frequencies: Vec<f64> = (0..channels / 2).map(frequency).collect();
            // Rounded to f32 where diffusers rounds.
            let angles = (0..*places).flat_map(|place| frequencies.iter().map(move |it| (place as f64 * it) as f32));
            let angles: Vec<f32> = angles.collect();
            let table = |function: fn(f64) -> f64| {
                let values = angles.iter().map(|angle| function(f64::from(*angle)) as f32);
                let values: Vec<f32> = values.chain(std::iter::repeat_n(0.0, channels / 2)).collect();
                Tensor::from_vec(values, (places + 1, channels / 2), device)
            };
            Ok([table(f64::cos)?, table(f64::sin)?])
        });
        Ok(Self {
            axes: axes.collect::<Result<_>>()?,
            nowhere: config.axes_lens.map(|places| places as u32),
            known: Mutex::new(LruCache::new(KEPT)),
        })
    }

    /// Of a caption of so many tokens, filled up.
    pub(super) fn of_caption(&self, tokens: usize) -> Result<RotaryPositions> {
        self.of_rows(&[(1..=tokens as u32).map(|place| [place, 0, 0]).collect()])
    }

    /// Of pictures, filled up, and then captions, filled up with nowhere to the longest. `captions` has their tokens, row
    /// by row. Made once for all steps in which the same rows meet.
    pub(super) fn of_whole(&self, grid: (usize, usize), captions: &[usize]) -> Result<RowPlaces> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || -> Result<_> {
            let (all, picture) = (self.make_whole(grid, captions)?, filled(grid.0 * grid.1));
            let bias = self.nowhere_bias(picture, captions)?;
            Ok(RowPlaces { pictures: all.of_tokens(0, picture)?, all, bias })
        };
        known.try_get_or_insert((grid, captions.to_vec()), make).cloned()
    }

    /// `[rows, 1, 1, tokens]`, where rows are of different lengths.
    #[allow(clippy::disallowed_methods, reason = "once while the same rows meet")]
    fn nowhere_bias(&self, picture: usize, captions: &[usize]) -> Result<Option<Tensor>> {
        let longest = captions.iter().copied().max().unwrap_or(0);
        if captions.iter().all(|caption| *caption == longest) {
            return Ok(None);
        }
        let bias = |caption: &usize| [vec![0.0; picture + caption], vec![NOWHERE_BIAS; longest - caption]].concat();
        let bias: Vec<f32> = captions.iter().flat_map(bias).collect();
        Tensor::from_vec(bias, (captions.len(), 1, 1, picture + longest), self.axes[0][0].device()).map(Some)
    }

    fn make_whole(&self, (height, width): (usize, usize), captions: &[usize]) -> Result<RotaryPositions> {
        let longest = captions.iter().copied().max().unwrap_or(0);
        let picture = height * width;
        let row = |caption: &usize| {
            let behind = *caption as u32 + 1;
            let in_picture =
                (0..height as u32).flat_map(|row| (0..width as u32).map(move |column| [behind, row, column]));
            let filling = std::iter::repeat_n([0; AXES], filled(picture) - picture);
            let in_caption = (1..behind).map(|place| [place, 0, 0]);
            let nowhere = std::iter::repeat_n(self.nowhere, longest - caption);
            in_picture.chain(filling).chain(in_caption).chain(nowhere).collect::<Vec<_>>()
        };
        self.of_rows(&captions.iter().map(row).collect::<Vec<_>>())
    }

    /// All rows have as many tokens.
    #[allow(clippy::disallowed_methods, reason = "once while the same rows meet")]
    fn of_rows(&self, rows: &[Vec<[u32; AXES]>]) -> Result<RotaryPositions> {
        let tokens = rows.first().map_or(0, Vec::len);
        let table = |which: usize| {
            let axes = self.axes.iter().enumerate().map(|(axis, tables)| {
                let places: Vec<u32> = rows.iter().flatten().map(|token| token[axis]).collect();
                let places = Tensor::from_vec(places, rows.len() * tokens, tables[which].device())?;
                tables[which].index_select(&places, 0)
            });
            let axes = Tensor::cat(&axes.collect::<Result<Vec<_>>>()?, 1)?;
            axes.reshape((rows.len(), tokens, ()))
        };
        Ok(RotaryPositions::of_rows(table(0)?, table(1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_behind_their_own_caption_and_what_fills_up_is_at_0_or_nowhere() {
        let text = r#"{"dim": 6, "n_heads": 1, "axes_dims": [2, 2, 2], "axes_lens": [99, 4, 4]}"#;
        let config = TransformerConfig::from_json(text).unwrap();
        let places = Places::new(&config, &Device::Cpu).unwrap();
        let whole = places.of_whole((1, 2), &[32, 64]).unwrap();
        let (cosines, sines) = whole.all.tables();
        assert_eq!(whole.pictures.tables().0.dims(), [2, 32, 3]);
        let bias = whole.bias.unwrap().squeeze(1).unwrap().squeeze(1).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!((&bias[0][..64], &bias[0][64..]), (&[0.0; 64][..], &[NOWHERE_BIAS; 32][..]));
        assert_eq!(bias[1], [0.0; 96]);
        let again = places.of_whole((1, 2), &[32, 64]).unwrap();
        assert_eq!(again.all.tables().0.id(), cosines.id(), "made once for all steps of these rows");
        assert!(places.of_whole((1, 2), &[32, 32]).unwrap().bias.is_none());
        assert_eq!(cosines.dims(), [2, 32 + 64, 3]);
        let at = |row: usize, token: usize| {
            let of = |table: &Tensor| table.get(row).unwrap().get(token).unwrap().to_vec1::<f32>().unwrap();
            (of(cosines), of(sines))
        };
        let turned = |angles: [f32; 3]| (angles.map(f32::cos).to_vec(), angles.map(f32::sin).to_vec());
        let near = |found: (Vec<f32>, Vec<f32>), expected: (Vec<f32>, Vec<f32>)| {
            let pairs = found.0.iter().zip(&expected.0).chain(found.1.iter().zip(&expected.1));
            pairs.for_each(|(found, expected)| assert!((found - expected).abs() < 1e-6, "{found} for {expected}"));
        };
        near(at(0, 1), turned([33.0, 0.0, 1.0]));
        near(at(1, 1), turned([65.0, 0.0, 1.0]));
        near(at(0, 2), turned([0.0; 3]));
        near(at(0, 32), turned([1.0, 0.0, 0.0]));
        near(at(0, 63), turned([32.0, 0.0, 0.0]));
        assert_eq!(at(0, 64), (vec![0.0; 3], vec![0.0; 3]));
        near(at(1, 64), turned([33.0, 0.0, 0.0]));
    }
}
