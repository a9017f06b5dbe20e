//! Computes everything and records what a calibration is fitted to.

use candle_core::{D, DType, Result, Tensor};

use super::tea_cache::EPSILON;
use super::{Engine, Visit};
use crate::block_list::{Probe, Streams};
use crate::calibration::CalibrationStep;
use crate::decision::Reason;
use crate::distance::relative_distance_above;
use crate::report::ContextReport;

#[derive(Debug, Clone)]
pub(super) struct Recorder {
    blocks: usize,
    /// Modulated input and hidden stream of the forward in progress.
    entry: Option<(Tensor, Tensor)>,
    /// The forward before.
    before: Option<Observed>,
    steps: Vec<CalibrationStep>,
    report: ContextReport,
}

/// What a forward leaves for comparison with the next.
#[derive(Debug, Clone)]
struct Observed {
    modulated: Tensor,
    output: Tensor,
    /// What the block stack added, f32.
    residual: Tensor,
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
            let output = streams.hidden.force_contiguous()?;
            if let Some(before) = &self.before {
                self.steps.push(CalibrationStep {
                    input_distance: relative_distance_above(&before.modulated, &modulated, EPSILON)?,
                    output_distance: relative_distance_above(&before.output, &output, EPSILON)?,
                    magnitude_ratio: magnitude_ratio(&before.residual, &residual)?,
                });
            }
            self.before = Some(Observed { modulated, output, residual });
        }
        Ok(Visit::Run)
    }

    fn snapshot(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        super::stored::bytes(
            self.before.iter().flat_map(|before| [&before.modulated, &before.output, &before.residual]),
        )
    }

    fn reports(&self) -> Vec<ContextReport> {
        vec![self.report.clone()]
    }

    fn cached_steps(&self) -> usize {
        0
    }

    fn calibration_steps(&self) -> &[CalibrationStep] {
        &self.steps
    }
}

/// Mean over tokens of the quotient of their lengths.
fn magnitude_ratio(before: &Tensor, now: &Tensor) -> Result<f64> {
    let length = |tensor: &Tensor| tensor.sqr()?.sum(D::Minus1)?.sqrt();
    let ratios = (length(now)? / (length(before)? + f64::from(EPSILON))?)?;
    Ok(f64::from(ratios.mean_all()?.to_scalar::<f32>()?))
}
