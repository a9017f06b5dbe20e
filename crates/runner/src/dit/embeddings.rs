//! What enters a DiT besides its weights: patches with positions, timesteps and class labels.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder};

/// Size of the sinusoidal timestep projection; fixed in diffusers.
const TIMESTEP_CHANNELS: usize = 256;
/// Longest period of the sinusoids.
const MAX_PERIOD: f64 = 10_000.0;

/// Latents to tokens: a convolution whose kernel equals its stride, done as one matrix product.
#[derive(Debug)]
pub(super) struct PatchEmbed {
    projection: Linear,
    patch_size: usize,
}

impl PatchEmbed {
    pub(super) fn new(channels: usize, patch_size: usize, hidden_size: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let vb = vb.pp("proj");
        let kernel = vb.get((hidden_size, channels, patch_size, patch_size), "weight")?;
        let projection = Linear::new(kernel.flatten_from(1)?, Some(vb.get(hidden_size, "bias")?));
        Ok(Self { projection, patch_size })
    }

    /// `[rows, channels, height, width]` to `[rows, tokens, hidden]`; `positions` is `[tokens, hidden]`.
    pub(super) fn forward(&self, latents: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let (rows, channels, height, width) = latents.dims4()?;
        let side = self.patch_size;
        let patches = latents
            .reshape(&[rows, channels, height / side, side, width / side, side])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((rows, height / side * (width / side), channels * side * side))?;
        let tokens = self.projection.forward(&patches)?;
        // Positions are added in f32 whatever the model's dtype.
        tokens.to_dtype(DType::F32)?.broadcast_add(positions)?.to_dtype(latents.dtype())
    }
}

/// Sine and cosine positions of a `height` x `width` grid of patches: `[height * width, hidden]`, f32.
///
/// The first half encodes the column, the second the row. Grids other than the `base` x `base` the
/// model was made for are stretched to the same range.
pub(super) fn positions(hidden_size: usize, height: usize, width: usize, base: usize) -> Result<Tensor> {
    let quarter = hidden_size / 4;
    let frequencies: Vec<f64> = (0..quarter).map(|index| MAX_PERIOD.powf(-(index as f64) / quarter as f64)).collect();
    let coordinate = |index: usize, side: usize| f64::from(index as f32 / (side as f32 / base as f32));
    let mut values = Vec::with_capacity(height * width * hidden_size);
    for row in 0..height {
        for column in 0..width {
            for position in [coordinate(column, width), coordinate(row, height)] {
                values.extend(frequencies.iter().map(|frequency| (position * frequency).sin() as f32));
                values.extend(frequencies.iter().map(|frequency| (position * frequency).cos() as f32));
            }
        }
    }
    Tensor::from_vec(values, (height * width, hidden_size), &Device::Cpu)
}

/// Cosines and sines of every row's timestep: `[rows, 256]`, f32.
pub(super) fn timestep_projection(timesteps: &[f32], device: &Device) -> Result<Tensor> {
    let half = TIMESTEP_CHANNELS / 2;
    // Rounded to f32 where PyTorch rounds: at timestep 999 one ulp of a frequency already shows.
    let frequencies: Vec<f32> = (0..half)
        .map(|index| {
            let exponent = -(MAX_PERIOD.ln() as f32) * index as f32 / (half - 1) as f32;
            f64::from(exponent).exp() as f32
        })
        .collect();
    let mut values = Vec::with_capacity(timesteps.len() * TIMESTEP_CHANNELS);
    for timestep in timesteps {
        let angles = || frequencies.iter().map(|frequency| f64::from(timestep * frequency));
        values.extend(angles().map(|angle| angle.cos() as f32));
        values.extend(angles().map(|angle| angle.sin() as f32));
    }
    Tensor::from_vec(values, (timesteps.len(), TIMESTEP_CHANNELS), device)
}

/// What a block is told about its rows.
#[derive(Debug, Clone)]
pub(super) struct Conditioning {
    /// `[rows, 256]`, in the model's dtype.
    pub(super) timesteps: Tensor,
    /// `[rows]`, u32.
    pub(super) classes: Tensor,
}

impl Conditioning {
    pub(super) fn select(&self, rows: &[usize]) -> Result<Self> {
        let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        let rows = Tensor::new(rows, self.classes.device())?;
        Ok(Self { timesteps: self.timesteps.index_select(&rows, 0)?, classes: self.classes.index_select(&rows, 0)? })
    }
}

/// Timestep and class label to one vector per row; every block has its own.
#[derive(Debug)]
pub(super) struct TimestepLabelEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    classes: Embedding,
}

impl TimestepLabelEmbedding {
    pub(super) fn new(num_classes: usize, hidden_size: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let timestep = vb.pp("timestep_embedder");
        let table = vb.pp("class_embedder").pp("embedding_table");
        Ok(Self {
            linear_1: candle_nn::linear(TIMESTEP_CHANNELS, hidden_size, timestep.pp("linear_1"))?,
            linear_2: candle_nn::linear(hidden_size, hidden_size, timestep.pp("linear_2"))?,
            classes: candle_nn::embedding(num_classes + 1, hidden_size, table)?,
        })
    }

    /// `[rows, hidden]`
    pub(super) fn forward(&self, conditioning: &Conditioning) -> Result<Tensor> {
        let timestep = self.linear_2.forward(&self.linear_1.forward(&conditioning.timesteps)?.silu()?)?;
        timestep + self.classes.forward(&conditioning.classes)?
    }
}

/// `(1 + scale) * x + shift` with `x` `[rows, tokens, hidden]` and the others `[rows, hidden]`.
pub(super) fn modulate(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale + 1.0)?.unsqueeze(1)?)?.broadcast_add(&shift.unsqueeze(1)?)
}

/// Layer norm without weight and bias over the last dimension.
#[derive(Debug)]
pub(super) struct PlainLayerNorm {
    ones: Tensor,
    zeros: Tensor,
    eps: f32,
}

impl PlainLayerNorm {
    pub(super) fn new(size: usize, eps: f64, vb: &VarBuilder<'_>) -> Result<Self> {
        let ones = Tensor::ones(size, vb.dtype(), vb.device())?;
        Ok(Self { zeros: ones.zeros_like()?, ones, eps: eps as f32 })
    }

    /// With weight and bias, where `affine`.
    pub(super) fn load(size: usize, eps: f64, affine: bool, vb: VarBuilder<'_>) -> Result<Self> {
        if !affine {
            return Self::new(size, eps, &vb);
        }
        Ok(Self { ones: vb.get(size, "weight")?, zeros: vb.get(size, "bias")?, eps: eps as f32 })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        debug_assert_eq!(x.dim(D::Minus1)?, self.ones.dim(0)?);
        candle_nn::ops::layer_norm(&x.contiguous()?, &self.ones, &self.zeros, self.eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_start_with_the_column() {
        // Hidden size 4: one frequency (1) each; sin, cos of the column, then of the row.
        let positions = positions(4, 1, 2, 2).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(positions[0], [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(positions[1][..2], [1f32.sin(), 1f32.cos()]);
        assert_eq!(positions[1][2..], [0.0, 1.0]);
    }

    #[test]
    fn timesteps_give_cosines_first() {
        let projection = timestep_projection(&[0.0, 1.0], &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(projection[0][..128], [1.0; 128]);
        assert_eq!(projection[0][128..], [0.0; 128]);
        assert!((projection[1][0] - 1f32.cos()).abs() < 1e-7);
        assert!((projection[1][127] - 1.0).abs() < 1e-7, "the slowest sinusoid has period 10 000");
    }
}
