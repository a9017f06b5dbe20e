//! Where the tokens of a picture stand: its grid is fitted into that of 512 x 512 pixels.
//!
//! Follows diffusers 0.42.1:
//!
//! * pipeline_hunyuandit.py: `get_resize_crop_region_for_grid` (lines 95-113):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/hunyuandit>
//! * `get_2d_rotary_pos_embed` (lines 779-813) and `get_2d_rotary_pos_embed_from_grid` (816-847):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L779>

use candle_core::{Device, Result};

use crate::LatentShape;
use crate::layers::RotaryPositions;

/// Pixels of a latent and side of the base grid in pixels, whatever the VAE is; fixed in diffusers' pipeline.
const LATENT_PIXELS: usize = 8;
const BASE_PIXELS: usize = 512;

/// The grid of patches that diffusers' pipeline makes positions for; `None` where it does not fit the latents.
pub(super) fn position_grid(latents: LatentShape, vae_scale: usize, patch_size: usize) -> Option<[usize; 2]> {
    let grid = [latents.height, latents.width].map(|side| side * vae_scale / LATENT_PIXELS / patch_size);
    let tokens = [latents.height / patch_size, latents.width / patch_size];
    // A single position serves all tokens: tensors of PyTorch broadcast.
    (grid == tokens || grid == [1, 1]).then_some(grid)
}

/// The positions of so many tokens on a grid of [`position_grid`].
pub(super) fn positions(
    [height, width]: [usize; 2],
    tokens: usize,
    patch_size: usize,
    head_size: usize,
    device: &Device,
) -> Result<RotaryPositions> {
    let [rows, columns] = axes([height, width], BASE_PIXELS / LATENT_PIXELS / patch_size);
    // The column comes first.
    let places: Vec<_> = rows.iter().flat_map(|row| columns.iter().map(|column| [*column, *row])).collect();
    let places: Vec<_> = places.iter().copied().cycle().take(tokens).collect();
    RotaryPositions::between(&places, &[head_size / 2; 2], device)
}

/// Coordinates of rows and columns: the grid is scaled to touch a square of `base` and stands in its middle.
fn axes([height, width]: [usize; 2], base: usize) -> [Vec<f32>; 2] {
    let (rows, columns, side) = (height as f64, width as f64, base as f64);
    let fitted = if rows / columns > 1.0 {
        [side, (side / rows * columns).round_ties_even()]
    } else {
        [(side / columns * rows).round_ties_even(), side]
    };
    let starts = fitted.map(|length| ((side - length) / 2.0).round_ties_even());
    [evenly(starts[0], starts[0] + fitted[0], height), evenly(starts[1], starts[1] + fitted[1], width)]
}

/// So many numbers from `start` on, evenly up to but not with `stop`: `torch.linspace` up to the last one, in f32.
fn evenly(start: f64, stop: f64, count: usize) -> Vec<f32> {
    let (first, last) = (start as f32, (stop * (count as f64 - 1.0) / count as f64) as f32);
    let step = if count > 1 { (last - first) / (count - 1) as f32 } else { 0.0 };
    let value = |index: usize| match index < count / 2 || count == 1 {
        true => first + step * index as f32,
        false => last - step * (count - 1 - index) as f32,
    };
    (0..count).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_fitted_into_the_base() {
        assert_eq!(axes([4, 4], 32), [[0.0, 8.0, 16.0, 24.0]; 2]);
        // 4 x 6: 32 columns, 21 rows of which the first is the 6th (5.5 rounds to even).
        let [rows, columns] = axes([4, 6], 32);
        assert_eq!((rows[0], columns[0]), (6.0, 0.0));
        let last = |values: &[f32]| values.last().copied().unwrap();
        assert!((last(&rows) - 27.0 * 3.0 / 4.0).abs() < 1e-5 && (last(&columns) - 32.0 * 5.0 / 6.0).abs() < 1e-5);
        assert_eq!(axes([1, 1], 32), [[0.0]; 2]);
    }

    #[test]
    fn the_grid_is_that_of_eight_pixels_a_latent() {
        let latents = |height, width| LatentShape::picture(4, height, width);
        assert_eq!(position_grid(latents(8, 12), 8, 2), Some([4, 6]));
        assert_eq!(position_grid(latents(16, 16), 1, 2), Some([1, 1]));
        assert_eq!(position_grid(latents(32, 32), 2, 2), None);
    }
}
