//! Computes everything and records what a calibration is fitted to.

use candle_core::{D, DType, Result, Tensor};

use super::tea_cache::input_distance;
use super::{Engine, Visit};
use crate::calibration::CalibrationStep;
use crate::decision::Reason;
use crate::driver::{Probe, Streams};
use crate::report::ContextReport;

/// Keeps quotients of lengths finite.
const EPSILON: f64 = 1e-8;

#[derive(Debug)]
pub(super) struct Recorder {
    blocks: usize,
    /// Modulated input and hidden stream of the forward in progress.
    entry: Option<(Tensor, Tensor)>,
    /// Modulated input and residual of the forward before.
    before: Option<(Tensor, Tensor)>,
    steps: Vec<CalibrationStep>,
    report: ContextReport,
}

impl Recorder {
    pub(super) fn new(blocks: usize) -> Self {
        Self { blocks, entry: None, before: None, steps: Vec::new(), report: ContextReport::new("all") }
    }
}

impl Engine for Recorder {
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            self.entry = Some((probe.modulated_input(streams)?, streams.hidden.clone()));
            self.report.record(self.report.reasons.len(), Reason::Off);
        }
        if index == self.blocks
            && let Some((modulated, hidden)) = self.entry.take()
        {
            let residual = (&streams.hidden - hidden)?.to_dtype(DType::F32)?;
            if let Some((modulated_before, residual_before)) = &self.before {
                self.steps.push(CalibrationStep {
                    input_distance: input_distance(modulated_before, &modulated)?,
                    residual_distance: input_distance(residual_before, &residual)?,
                    magnitude_ratio: magnitude_ratio(residual_before, &residual)?,
                });
            }
            self.before = Some((modulated, residual));
        }
        Ok(Visit::Run)
    }

    fn bytes(&self) -> usize {
        super::stored::bytes(self.before.iter().flat_map(|(modulated, residual)| [modulated, residual]))
    }

    fn reports(&self) -> Vec<ContextReport> {
        vec![self.report.clone()]
    }

    fn calibration_steps(&self) -> &[CalibrationStep] {
        &self.steps
    }
}

/// Mean over tokens of the quotient of their lengths.
fn magnitude_ratio(before: &Tensor, now: &Tensor) -> Result<f64> {
    let length = |tensor: &Tensor| tensor.sqr()?.sum(D::Minus1)?.sqrt();
    let ratios = (length(now)? / (length(before)? + EPSILON)?)?;
    Ok(f64::from(ratios.mean_all()?.to_scalar::<f32>()?))
}
