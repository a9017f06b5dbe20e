//! The keys of a config that `UniPCMultistepScheduler` reads for flow matching, with its defaults.
//!
//! Follows diffusers 0.42.1, scheduling_unipc_multistep.py: `UniPCMultistepScheduler.__init__` (lines 197-287):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>

use crate::DiffusionError;
use crate::schedulers::config::{SchedulerConfig, unsupported};
use crate::schedulers::prediction::PredictionType;

/// Which prediction is integrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integrated {
    Noise,
    Clean,
}

/// What steps are measured in, `B(h)` of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// `bh1`: the step.
    Step,
    /// `bh2`: how much it grows.
    Growth,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) order: usize,
    pub(super) prediction: PredictionType,
    pub(super) integrated: Integrated,
    pub(super) measure: Measure,
    pub(super) lower_order_final: bool,
    /// Steps behind which the sample is taken as it is.
    pub(super) uncorrected: Vec<usize>,
    pub(super) flow_shift: f64,
    /// The last level but the end, if levels are stretched to one.
    pub(super) terminal: Option<f64>,
    /// The run ends at its last level, not at 0.
    pub(super) ends_at_last: bool,
    pub(super) train_timesteps: usize,
}

impl Settings {
    pub(super) fn from_config(config: &SchedulerConfig) -> Result<Self, DiffusionError> {
        let others = ["thresholding", "use_beta_sigmas", "use_karras_sigmas", "use_exponential_sigmas"];
        config.must_be_off(&others)?;
        config.must_be_off(&["use_dynamic_shifting"])?;
        if config.is_set("solver_p") {
            return Err(unsupported("solver_p", "a scheduler", "null"));
        }
        let order = match config.whole_number("solver_order", 2)? {
            order @ 1..=3 => order,
            other => return Err(unsupported("solver_order", other, "1, 2, 3")),
        };
        let integrated = match config.boolean("predict_x0", true)? {
            true => Integrated::Clean,
            false => Integrated::Noise,
        };
        // What diffusers makes of the configs of other solvers.
        let measures = [
            ("bh2", Measure::Growth),
            ("bh1", Measure::Step),
            ("midpoint", Measure::Growth),
            ("heun", Measure::Growth),
            ("logrho", Measure::Growth),
        ];
        let ends = [("zero", false), ("sigma_min", true)];
        Ok(Self {
            order,
            prediction: match integrated {
                Integrated::Clean => PredictionType::at_flow_sigmas(config)?,
                Integrated::Noise => PredictionType::from_config(config)?,
            },
            integrated,
            measure: config.choice("solver_type", &measures, Measure::Growth)?,
            lower_order_final: config.boolean("lower_order_final", true)?,
            uncorrected: steps(config.numbers("disable_corrector")?.unwrap_or_default()),
            flow_shift: config.positive("flow_shift", 1.0, f64::INFINITY)?,
            terminal: terminal(config)?,
            ends_at_last: config.choice("final_sigmas_type", &ends, false)?,
            train_timesteps: config.num_train_timesteps()?,
        })
    }
}

fn steps(numbers: Vec<f64>) -> Vec<usize> {
    // What is no step's number names none.
    numbers.into_iter().filter(|number| *number >= 0.0 && number.fract() == 0.0).map(|number| number as usize).collect()
}

fn terminal(config: &SchedulerConfig) -> Result<Option<f64>, DiffusionError> {
    if !config.is_set("shift_terminal") || config.is_off("shift_terminal") {
        return Ok(None);
    }
    let terminal = config.number("shift_terminal", 0.0)?;
    if !(0.0..1.0).contains(&terminal) {
        return Err(unsupported("shift_terminal", terminal, "null or a number from 0, less than 1"));
    }
    // 0 is no terminal in diffusers.
    Ok((terminal > 0.0).then_some(terminal))
}
