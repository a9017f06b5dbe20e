//! What a run of blocks did to the two streams, kept for later steps.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_contexts/cache_manager.py`, lines 689-854 (`set_Bn_buffer` to
//! `apply_cache`).

use std::collections::HashMap;

use candle_core::{Result, Tensor};

use crate::block_list::Streams;
use crate::calibrator::Calibrator;
use crate::config::CalibratorConfig;

/// The effect of a run of blocks on both streams at the last computed step, or its prediction.
#[derive(Debug, Clone)]
pub(super) struct StoredEffect {
    hidden: Stored,
    encoder: Stored,
    /// The output itself is kept, not what was added.
    stores_output: bool,
}

/// One stream's value.
#[derive(Debug, Clone)]
enum Stored {
    Last(Option<Tensor>),
    Calibrated(Calibrator),
}

impl StoredEffect {
    pub(super) fn new(calibrator: Option<CalibratorConfig>) -> Self {
        let stored = |on: bool| match calibrator {
            Some(calibrator) if on => Stored::Calibrated(Calibrator::new(calibrator.kind)),
            _ => Stored::Last(None),
        };
        Self {
            hidden: stored(true),
            encoder: stored(calibrator.is_some_and(|calibrator| calibrator.encoder)),
            stores_output: calibrator.is_some_and(|calibrator| !calibrator.residual),
        }
    }

    /// A forward has begun.
    pub(super) fn tick(&mut self) {
        for stored in [&mut self.hidden, &mut self.encoder] {
            if let Stored::Calibrated(calibrator) = stored {
                calibrator.tick();
            }
        }
    }

    /// The blocks have turned `before` into `after`.
    pub(super) fn update(&mut self, before: &Streams, after: &Streams) -> Result<()> {
        self.hidden.update(&before.hidden, &after.hidden, self.stores_output)?;
        if let (Some(before), Some(after)) = (&before.encoder, &after.encoder) {
            let stores_output = self.stores_output && self.encoder.is_calibrated();
            self.encoder.update(before, after, stores_output)?;
        }
        Ok(())
    }

    /// What the blocks would turn `streams` into; `None` if they have never run. A stream without a
    /// value stays as it is.
    pub(super) fn apply(&mut self, streams: &Streams) -> Result<Option<Streams>> {
        let Some(value) = self.hidden.predict()? else { return Ok(None) };
        let hidden = if self.stores_output { value } else { (value + &streams.hidden)? };
        let encoder = match (&streams.encoder, self.encoder.predict()?) {
            (Some(_), Some(value)) if self.stores_output && self.encoder.is_calibrated() => Some(value),
            (Some(encoder), Some(value)) => Some((value + encoder)?),
            (encoder, _) => encoder.clone(),
        };
        Ok(Some(Streams { hidden, encoder }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hidden.tensors().is_empty()
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.hidden.tensors().into_iter().chain(self.encoder.tensors())
    }
}

impl Stored {
    fn is_calibrated(&self) -> bool {
        matches!(self, Self::Calibrated(_))
    }

    fn update(&mut self, before: &Tensor, after: &Tensor, stores_output: bool) -> Result<()> {
        // A slice of a batch must not keep the whole batch alive.
        let value = if stores_output { after.force_contiguous()? } else { (after - before)? };
        match self {
            Self::Last(last) => *last = Some(value),
            Self::Calibrated(calibrator) => calibrator.update(value)?,
        }
        Ok(())
    }

    fn predict(&mut self) -> Result<Option<Tensor>> {
        match self {
            Self::Last(last) => Ok(last.clone()),
            Self::Calibrated(calibrator) => calibrator.predict(),
        }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Last(last) => last.iter().collect(),
            Self::Calibrated(calibrator) => calibrator.tensors(),
        }
    }
}

/// Bytes of distinct tensors; a calibrator may hold one twice.
pub(super) fn bytes<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> usize {
    let sizes: HashMap<_, _> =
        tensors.map(|tensor| (tensor.id(), tensor.elem_count() * tensor.dtype().size_in_bytes())).collect();
    sizes.values().sum()
}
