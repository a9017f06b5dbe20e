//! A feature map of one picture, made stripe by stripe, and what group norms have to know about it.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use crate::ops::convolution::Convolution;
use crate::ops::group_norm::{Moments, group_moments};

/// Shape of a feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapShape {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// A feature map. It owns its storage: blocks write their output over their input.
#[derive(Debug)]
pub(super) struct FeatureMap {
    /// `[1, channels, height, width]`, contiguous.
    values: Tensor,
    /// One per group of channels, of all lines that were set.
    moments: Vec<Moments>,
}

impl MapShape {
    pub(super) fn line_values(self) -> usize {
        self.channels * self.width
    }

    pub(super) fn values(self) -> usize {
        self.line_values() * self.height
    }
}

/// Adds what `values` `[1, channels, lines, width]` say about each group.
pub(super) fn add_moments(moments: &mut [Moments], values: &Tensor) -> Result<()> {
    let added = group_moments(values, moments.len())?;
    for (moments, added) in moments.iter_mut().zip(added) {
        *moments = moments.merge(added);
    }
    Ok(())
}

impl FeatureMap {
    /// Of values that are there: `[1, channels, height, width]`.
    pub(super) fn of(values: Tensor, groups: usize) -> Result<Self> {
        let values = values.contiguous()?;
        let mut moments = vec![Moments::default(); groups];
        add_moments(&mut moments, &values)?;
        Ok(Self { values, moments })
    }

    /// A feature map whose lines are still to be set, over `values`.
    pub(super) fn onto(values: Tensor, groups: usize) -> Self {
        Self { values, moments: vec![Moments::default(); groups] }
    }

    /// Storage for [`Self::onto`].
    pub(super) fn storage(shape: MapShape, dtype: DType, device: &Device) -> Result<Tensor> {
        Tensor::zeros((1, shape.channels, shape.height, shape.width), dtype, device)
    }

    pub(super) fn shape(&self) -> MapShape {
        let dims = self.values.dims();
        MapShape { channels: dims[1], height: dims[2], width: dims[3] }
    }

    pub(super) fn moments(&self) -> &[Moments] {
        &self.moments
    }

    pub(super) fn values(&self) -> &Tensor {
        &self.values
    }

    pub(super) fn into_values(self) -> Tensor {
        self.values
    }

    /// Some lines: `[1, channels, lines, width]`, a view.
    pub(super) fn lines(&self, lines: Range<usize>) -> Result<Tensor> {
        self.values.narrow(2, lines.start, lines.len())
    }

    /// Sets the lines from `first` on to `lines` of what `conv` makes of `x`; each line once. With `adds` they are added to what
    /// is there.
    pub(super) fn set_convolved(
        &mut self,
        first: usize,
        conv: &Convolution,
        x: &Tensor,
        lines: Range<usize>,
        adds: bool,
    ) -> Result<()> {
        let set = first..first + lines.len();
        conv.write_lines(x, lines, &self.values, first, adds)?;
        let values = self.lines(set)?;
        add_moments(&mut self.moments, &values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_lines_are_those_of_the_whole() {
        let shape = MapShape { channels: 4, height: 5, width: 3 };
        let values = Tensor::arange(0f32, shape.values() as f32, &Device::Cpu).unwrap().sin().unwrap();
        let values = values.affine(0.1, 3.0).unwrap().reshape((1, 4, 5, 3)).unwrap();
        let whole = FeatureMap::of(values.clone(), 2).unwrap();
        for dtype in [DType::F32, DType::F64] {
            let storage = FeatureMap::storage(shape, dtype, &Device::Cpu).unwrap();
            let mut map = FeatureMap::onto(storage, 2);
            for lines in [0..2, 2..3, 3..5] {
                let lines = whole.lines(lines.clone()).map(|values| (lines.start, values)).unwrap();
                let values = lines.1.to_dtype(dtype).unwrap().contiguous().unwrap();
                add_moments(&mut map.moments, &values).unwrap();
                map.values.slice_set(&values, 2, lines.0).unwrap();
            }
            for (found, expected) in map.moments().iter().zip(whole.moments()) {
                assert!((found.mean - expected.mean).abs() < 1e-6, "{found:?} for {expected:?}");
                assert!((found.variance() - expected.variance()).abs() < 1e-8, "{found:?} for {expected:?}");
            }
        }
        assert_eq!(whole.shape(), shape);
    }
}
