//! Weights behind candle's builders, through which its own modules load.

use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::Weights;
use crate::CheckpointError;

/// Lets one [`Weights`] back any number of builders.
pub(super) struct SharedWeights(pub(super) Arc<Weights>);

impl SimpleBackend for SharedWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.take(name, Some(&shape), dtype, device).map_err(into_candle)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.take(name, None, dtype, device).map_err(into_candle)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// The same without contents.
pub(super) struct UnreadWeights(pub(super) Arc<Weights>);

impl SimpleBackend for UnreadWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.take_unread(name, Some(&shape), dtype, device).map_err(into_candle)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.take_unread(name, None, dtype, device).map_err(into_candle)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// The message alone, without the backtrace that candle's own constructors add.
pub(super) fn into_candle(error: CheckpointError) -> candle_core::Error {
    match error {
        CheckpointError::Tensor(error) => error,
        other => candle_core::Error::Msg(other.to_string()),
    }
}
