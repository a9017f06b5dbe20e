//! What a transformer works on: the shape of one image's latents, or of one video's.

use candle_core::{Result, Tensor};

/// The shape of the latents of one canvas; a VAE makes it from the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LatentShape {
    /// Values of a place.
    pub channels: usize,
    /// Of models that make videos; `None` where latents have no such dimension.
    pub frames: Option<usize>,
    /// Latents from top to bottom.
    pub height: usize,
    /// Latents from left to right.
    pub width: usize,
}

impl LatentShape {
    /// Latents of a picture.
    pub fn picture(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, frames: None, height, width }
    }

    /// Of these latents, `[rows, channels, height, width]` or with frames behind the channels.
    ///
    /// # Errors
    /// If they have another number of dimensions.
    pub fn of(latents: &Tensor) -> Result<Self> {
        match *latents.dims() {
            [_, channels, height, width] => Ok(Self::picture(channels, height, width)),
            [_, channels, frames, height, width] => Ok(Self { channels, frames: Some(frames), height, width }),
            _ => candle_core::bail!("latents have 4 or 5 dimensions, not {}", latents.dims().len()),
        }
    }

    /// The dimensions of a tensor of so many rows.
    pub fn dims(&self, rows: usize) -> Vec<usize> {
        let places = [Some(self.height), Some(self.width)];
        [Some(rows), Some(self.channels), self.frames].into_iter().chain(places).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn a_shape_is_that_of_its_tensors() {
        for shape in [LatentShape::picture(4, 8, 6), LatentShape { frames: Some(3), ..LatentShape::picture(4, 8, 6) }] {
            let latents = Tensor::zeros(shape.dims(2), DType::F32, &Device::Cpu).unwrap();
            assert_eq!(LatentShape::of(&latents).unwrap(), shape);
        }
        assert!(LatentShape::of(&Tensor::zeros((4, 8, 6), DType::F32, &Device::Cpu).unwrap()).is_err());
    }
}
