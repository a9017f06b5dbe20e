//! Rows of a batch.

use candle_core::{Device, Result, Tensor};

/// Indices for candle's `index_select`.
pub(crate) fn row_indices(rows: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::new(rows.iter().map(|row| *row as u32).collect::<Vec<_>>(), device)
}
