//! Between latents and tokens: patches, their positions, and back.
//!
//! Follows diffusers 0.42.1, `get_2d_sincos_pos_embed` (lines 147-197), `get_2d_sincos_pos_embed_from_grid` (200-219),
//! `get_1d_sincos_pos_embed_from_grid` (222-260) and `PatchEmbed` (263-388):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L147>

use std::collections::HashMap;

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Device, Result, Tensor};

use super::linear::Linear;
use crate::LatentShape;
use crate::ops::strided::with_layouts_kept;

/// Longest period of the sinusoids.
const MAX_PERIOD: f64 = 10_000.0;
/// Most values of positions, all sizes together: 2 GiB, which is that of 8192 x 8192 pixels in 2048 channels.
const MAX_POSITION_VALUES: usize = 1 << 29;

/// Latents to tokens with their positions: a convolution whose kernel equals its stride, done as one
/// matrix product.
#[derive(Debug)]
pub(crate) struct PatchEmbed {
    projection: Linear,
    patch_size: usize,
    hidden_size: usize,
    dtype: DType,
    device: Device,
    /// `[tokens, hidden]`, f32, by height and width of the grid of patches.
    positions: HashMap<(usize, usize), Tensor>,
}

impl PatchEmbed {
    /// For latents of `channels`, with no positions yet.
    pub(crate) fn new(channels: usize, patch_size: usize, hidden_size: usize, parameters: Parameters) -> Result<Self> {
        Ok(Self {
            projection: Linear::of_patches(channels, patch_size, hidden_size, parameters.pp("proj"))?,
            patch_size,
            hidden_size,
            dtype: parameters.dtype(),
            device: parameters.device().clone(),
            positions: HashMap::new(),
        })
    }

    /// With positions for latents of these shapes. The model was made for square latents of `sample_size`.
    pub(crate) fn with_positions(
        mut self,
        shapes: &[LatentShape],
        sample_size: usize,
        interpolation_scale: f64,
    ) -> Result<Self> {
        let values = shapes.iter().map(|shape| self.tokens(*shape).saturating_mul(self.hidden_size));
        let values = values.fold(0usize, usize::saturating_add);
        if values > MAX_POSITION_VALUES {
            candle_core::bail!(
                "the positions of all sizes would be {values} numbers; at most {MAX_POSITION_VALUES} are kept: choose \
                 smaller or fewer --buckets"
            );
        }
        for shape in shapes {
            let (height, width) = self.grid(*shape);
            let grid = PositionGrid { height, width, base: sample_size / self.patch_size, interpolation_scale };
            let positions = grid.positions(self.hidden_size)?.to_device(&self.device)?;
            self.positions.insert((height, width), positions);
        }
        Ok(self)
    }

    /// With positions cut from the middle of a stored square of `side` x `side`, for latents of these shapes:
    /// a picture's centre has the same position whatever its size. Its parameter is `pos_embed`.
    pub(crate) fn with_stored_positions(
        mut self,
        shapes: &[LatentShape],
        side: usize,
        parameters: &Parameters,
    ) -> Result<Self> {
        let stored = parameters.get((1, side * side, self.hidden_size), "pos_embed")?;
        if shapes.is_empty() {
            return Ok(self);
        }
        let stored = stored.to_dtype(DType::F32)?.reshape((side, side, self.hidden_size))?;
        for shape in shapes {
            let (height, width) = self.grid(*shape);
            if height > side || width > side {
                candle_core::bail!("{height} x {width} patches are more than the {side} x {side} that have positions");
            }
            let middle = stored.narrow(0, (side - height) / 2, height)?.narrow(1, (side - width) / 2, width)?;
            self.positions.insert((height, width), middle.reshape((height * width, self.hidden_size))?);
        }
        Ok(self)
    }

    /// Tokens of one row.
    pub(crate) fn tokens(&self, shape: LatentShape) -> usize {
        let (height, width) = self.grid(shape);
        height * width
    }

    /// Rows and columns of patches.
    pub(crate) fn grid(&self, shape: LatentShape) -> (usize, usize) {
        (shape.height / self.patch_size, shape.width / self.patch_size)
    }

    /// Bytes of one token.
    pub(crate) fn token_bytes(&self) -> usize {
        self.hidden_size * self.dtype.size_in_bytes()
    }

    /// Bytes of one row's tokens.
    pub(crate) fn stream_bytes(&self, shape: LatentShape) -> usize {
        self.tokens(shape) * self.token_bytes()
    }

    /// `[rows, channels, height, width]` to `[rows, tokens, hidden]`.
    pub(crate) fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let shape = LatentShape::of(latents)?;
        let Some(positions) = self.positions.get(&self.grid(shape)) else {
            candle_core::bail!("the model was not prepared for {} x {} latents", shape.height, shape.width);
        };
        let tokens = self.forward_without_positions(latents)?.to_dtype(DType::F32)?;
        // Positions are added in f32 whatever the model's dtype, as diffusers adds those it computes.
        with_layouts_kept(tokens.device(), || tokens.broadcast_add(positions))?.to_dtype(latents.dtype())
    }

    /// The same in models whose tokens are told nothing about where they are.
    pub(crate) fn forward_without_positions(&self, latents: &Tensor) -> Result<Tensor> {
        self.projection.forward(&patchify(latents, self.patch_size)?)
    }
}

/// A grid of patches for which positions are wanted.
#[derive(Debug, Clone, Copy)]
struct PositionGrid {
    /// Rows and columns of patches.
    height: usize,
    width: usize,
    /// Side of the grid the model was made for; others are stretched to the same range.
    base: usize,
    /// What coordinates are divided by on top of that.
    interpolation_scale: f64,
}

impl PositionGrid {
    /// Sine and cosine positions: `[height * width, hidden]`, f32. The first half encodes the column, the
    /// second the row.
    #[allow(clippy::disallowed_methods, reason = "in no step: the model is being loaded")]
    fn positions(&self, hidden_size: usize) -> Result<Tensor> {
        let quarter = hidden_size / 4;
        let frequencies: Vec<f64> =
            (0..quarter).map(|index| MAX_PERIOD.powf(-(index as f64) / quarter as f64)).collect();
        let coordinate = |index: usize, side: usize| {
            f64::from(index as f32 / (side as f32 / self.base as f32) / self.interpolation_scale as f32)
        };
        // A row or column has the same values everywhere: computing them once keeps many buckets cheap.
        let axis = |side: usize| -> Vec<Vec<f32>> {
            let coordinates = (0..side).map(|index| coordinate(index, side));
            let angles = |position: f64| frequencies.iter().map(move |frequency| position * frequency);
            let both = |position| angles(position).map(f64::sin).chain(angles(position).map(f64::cos));
            coordinates.map(|position| both(position).map(|value| value as f32).collect()).collect()
        };
        let (rows, columns) = (axis(self.height), axis(self.width));
        let mut values = Vec::with_capacity(self.height * self.width * hidden_size);
        for row in &rows {
            for column in &columns {
                values.extend_from_slice(column);
                values.extend_from_slice(row);
            }
        }
        Tensor::from_vec(values, (self.height * self.width, hidden_size), &Device::Cpu)
    }
}

/// A picture to tokens: `[rows, channels, height * side, width * side]` to
/// `[rows, height * width, channels * side * side]`.
pub(crate) fn patchify(picture: &Tensor, side: usize) -> Result<Tensor> {
    let (rows, channels, height, width) = picture.dims4()?;
    let (height, width) = (height / side, width / side);
    // [rows, channels, height, side, width, side] -> [rows, height, width, channels, side, side]
    let patches = picture.reshape(&[rows, channels, height, side, width, side])?.permute([0, 2, 4, 1, 3, 5])?;
    with_layouts_kept(patches.device(), || patches.reshape((rows, height * width, channels * side * side)))
}

/// Tokens back to a picture: `[rows, height * width, side * side * channels]` to
/// `[rows, channels, height * side, width * side]`.
pub(crate) fn unpatchify(patches: &Tensor, (height, width): (usize, usize), side: usize) -> Result<Tensor> {
    let (rows, _, values) = patches.dims3()?;
    let channels = values / (side * side);
    // [rows, height, width, side, side, channels] -> [rows, channels, height, side, width, side]
    let patches = patches.reshape(&[rows, height, width, side, side, channels])?.permute([0, 5, 1, 3, 2, 4])?;
    with_layouts_kept(patches.device(), || patches.reshape((rows, channels, height * side, width * side)))
}

/// Tokens that [`patchify`] makes back to a picture: the channel is the slowest in them, as in what FLUX and Qwen-Image
/// predict.
pub(crate) fn unpatchify_channels_first(
    patches: &Tensor,
    (height, width): (usize, usize),
    side: usize,
) -> Result<Tensor> {
    let (rows, _, values) = patches.dims3()?;
    let channels = values / (side * side);
    // [rows, height, width, channels, side, side] -> [rows, channels, height, side, width, side]
    let patches = patches.reshape(&[rows, height, width, channels, side, side])?.permute([0, 3, 1, 4, 2, 5])?;
    with_layouts_kept(patches.device(), || patches.reshape((rows, channels, height * side, width * side)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpatchifying_reverts_patchifying() {
        let latents = Tensor::arange(0u32, 2 * 4 * 4 * 6, &Device::Cpu).unwrap().reshape((2, 4, 4, 6)).unwrap();
        let tokens = patchify(&latents, 2).unwrap();
        assert_eq!(tokens.dims(), [2, 6, 16]);
        let back = unpatchify_channels_first(&tokens, (2, 3), 2).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(values(&back), values(&latents));
    }

    #[test]
    fn positions_start_with_the_column() {
        // Hidden size 4: one frequency (1) each; sin, cos of the column, then of the row.
        let grid = PositionGrid { height: 1, width: 2, base: 2, interpolation_scale: 1.0 };
        let positions = grid.positions(4).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(positions[0], [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(positions[1][..2], [1f32.sin(), 1f32.cos()]);
        assert_eq!(positions[1][2..], [0.0, 1.0]);
    }
}
