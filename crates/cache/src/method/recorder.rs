//! Computes everything and records what a model is fitted to: TeaCache's pairs of distances, and
//! MagCache's ratios as MagCache defines them (arXiv 2506.09045).
//!
//! Reference: vLLM-Omni 0.30.0, `vllm_omni/diffusion/cache/magcache/hook.py`, lines 459-469
//! (`perform_calibration`).

use candle_core::{D, DType, Result, Tensor};

use super::tea_cache::EPSILON;
use super::{CachingMethod, Visit};
use crate::block_list::{Probe, Streams};
use crate::decision::Reason;
use crate::distance::ProposedDistance;
use crate::magnitudes::Number;
use crate::model_fit::ObservedStep;
use crate::report::ContextReport;
use crate::step_log::StepLog;

#[derive(Debug, Clone)]
pub(super) struct Recorder {
    blocks: usize,
    /// Modulated input and hidden stream of the forward in progress.
    entry: Option<(Tensor, Tensor)>,
    /// The forward before.
    before: Option<Observed>,
    /// The distances of inputs and outputs, while their means and the ratio are on their way.
    proposal: Option<[ProposedDistance; 2]>,
    steps: Vec<ObservedStep>,
    log: StepLog,
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
        Self { blocks, entry: None, before: None, proposal: None, steps: Vec::new(), log: StepLog::new("all") }
    }

    /// Compares a forward with the one before.
    fn observe(&mut self, now: Observed) -> Result<Vec<Number>> {
        let mut numbers = Vec::new();
        if let Some(before) = self.before.take() {
            let (input, means) = ProposedDistance::new(&before.modulated, &now.modulated, EPSILON);
            numbers.extend(means);
            let (output, means) = ProposedDistance::new(&before.output, &now.output, EPSILON);
            numbers.extend(means);
            numbers.push(Number::Scalar(magnitude_ratio(&before.residual, &now.residual)?));
            self.proposal = Some([input, output]);
        }
        self.before = Some(now);
        Ok(numbers)
    }
}

impl CachingMethod for Recorder {
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            self.entry = Some((probe.modulated_input(streams)?, streams.hidden.clone()));
            self.log.record(self.log.steps(), Reason::Off);
        } else if let Some((modulated, hidden)) = self.entry.take() {
            let residual = (&streams.hidden - hidden)?.to_dtype(DType::F32)?;
            let output = streams.hidden.force_contiguous()?;
            let numbers = self.observe(Observed { modulated, output, residual })?;
            if !numbers.is_empty() {
                return Ok(Visit::Compare { numbers, waits: true });
            }
        }
        Ok(Visit::Run { until: self.blocks, decides: false })
    }

    fn decide(&mut self, _streams: &Streams, numbers: &[f32]) -> Result<Visit> {
        let (Some([input, output]), [means @ .., ratio]) = (self.proposal.take(), numbers) else {
            candle_core::bail!("there is nothing to be observed")
        };
        let (input_means, output_means) = means.split_at(means.len() / 2);
        self.steps.push(ObservedStep {
            input_distance: input.distance(input_means)?,
            output_distance: output.distance(output_means)?,
            magnitude_ratio: f64::from(*ratio),
        });
        Ok(Visit::Run { until: self.blocks, decides: false })
    }

    fn snapshot(&self) -> Box<dyn CachingMethod> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        super::stored::bytes(
            self.before.iter().flat_map(|before| [&before.modulated, &before.output, &before.residual]),
        )
    }

    fn reports(&self) -> Vec<ContextReport> {
        vec![self.log.report()]
    }

    fn cached_steps(&self) -> usize {
        0
    }

    fn observed_steps(&self) -> &[ObservedStep] {
        &self.steps
    }
}

/// Mean over tokens of the quotient of their lengths.
fn magnitude_ratio(before: &Tensor, now: &Tensor) -> Result<Tensor> {
    let length = |tensor: &Tensor| tensor.sqr()?.sum(D::Minus1)?.sqrt();
    let ratios = (length(now)? / (length(before)? + f64::from(EPSILON))?)?;
    ratios.mean_all()
}
