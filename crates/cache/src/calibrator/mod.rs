//! Prediction of what the skipped blocks would have added.
//!
//! Plain reuse repeats the value of the last computed step. A calibrator extrapolates from the last
//! few computed steps instead. One instance serves one stream of one guidance branch; it is ticked once per
//! forward, updated on computed steps and queried on reused ones. Arithmetic stays in the tensor's
//! dtype, as in the reference (cache-dit 1.5.3, `caching/cache_contexts/calibrators`).

mod foca;
mod taylor_seer;

use candle_core::{Result, Tensor};

use crate::config::CalibratorKind;
use foca::FoCa;
use taylor_seer::TaylorSeer;

/// One stream's predictor.
#[derive(Debug, Clone)]
pub enum Calibrator {
    /// See [`CalibratorKind::TaylorSeer`].
    TaylorSeer(TaylorSeer),
    /// See [`CalibratorKind::FoCa`].
    FoCa(FoCa),
}

impl CalibratorKind {
    /// The most values of one stream a predictor comes to hold.
    pub(crate) fn stored_values(self) -> usize {
        match self {
            Self::TaylorSeer(order) => order + 1,
            // Two computed values, two recent ones.
            Self::FoCa => 4,
        }
    }
}

impl Calibrator {
    /// A predictor that has seen nothing.
    pub fn new(kind: CalibratorKind) -> Self {
        match kind {
            CalibratorKind::TaylorSeer(order) => Self::TaylorSeer(TaylorSeer::new(order)),
            CalibratorKind::FoCa => Self::FoCa(FoCa::default()),
        }
    }

    /// A forward has begun. Before the first update this does nothing.
    pub fn tick(&mut self) {
        match self {
            Self::TaylorSeer(state) => state.tick(),
            Self::FoCa(state) => state.tick(),
        }
    }

    /// Takes the true value of a computed step.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn update(&mut self, value: Tensor) -> Result<()> {
        match self {
            Self::TaylorSeer(state) => state.update(value),
            Self::FoCa(state) => {
                state.update(value);
                Ok(())
            }
        }
    }

    /// The value expected at the current step; `None` before the first update.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn predict(&mut self) -> Result<Option<Tensor>> {
        match self {
            Self::TaylorSeer(state) => state.predict(),
            Self::FoCa(state) => state.predict(),
        }
    }

    /// Every tensor held.
    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::TaylorSeer(state) => state.tensors(),
            Self::FoCa(state) => state.tensors(),
        }
    }
}
