//! The keys of a config that `DPMSolverMultistepScheduler` reads, with its defaults.
//!
//! Follows diffusers 0.42.1, scheduling_dpmsolver_multistep.py: `DPMSolverMultistepScheduler.__init__` (lines 214-341):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>

use crate::DiffusionError;
use crate::schedulers::{
    betas::BetaSchedule,
    config::{SchedulerConfig, unsupported},
    prediction::PredictionType,
    spacing::TimestepSpacing,
};

/// Which prediction is integrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// `dpmsolver`: the noise.
    Noise,
    /// `dpmsolver++`: the clean sample.
    Clean,
}

/// How the second order term is discretised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SolverType {
    Midpoint,
    Heun,
}

/// How the noise levels are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SigmaSchedule {
    /// Those of the spaced timesteps.
    Timesteps,
    /// Karras et al., arXiv 2206.00364.
    Karras,
    /// Evenly in the logarithm, from the f32 sigmas.
    Exponential,
    /// Lu et al., arXiv 2206.00927: evenly in the log signal-to-noise ratio.
    Lu,
    /// Of flow matching: shares of noise, evenly before they are shifted.
    Flow,
}

/// The noise level after the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalSigma {
    Zero,
    /// That of training timestep 0.
    SigmaMin,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) algorithm: Algorithm,
    pub(super) order: usize,
    pub(super) solver_type: SolverType,
    pub(super) prediction: PredictionType,
    pub(super) sigma_schedule: SigmaSchedule,
    /// How far levels of flow matching are shifted towards noise.
    pub(super) flow_shift: f64,
    pub(super) final_sigma: FinalSigma,
    pub(super) lower_order_final: bool,
    pub(super) euler_at_final: bool,
    pub(super) spacing: TimestepSpacing,
    pub(super) steps_offset: usize,
    /// Timesteps whose log signal-to-noise ratio lies below are never visited: cosine schedules begin with almost pure
    /// noise, where the solver is unstable.
    pub(super) lambda_min: f32,
    /// Whether timesteps that follow from sigmas are rounded to the nearest instead of down.
    pub(super) round_timesteps: bool,
    pub(super) rescale_betas_zero_snr: bool,
}

/// Its own, and those of `DDPMScheduler`, whose configuration it may be built from: the solver adds no noise.
const VARIANCE_TYPES: [&str; 6] =
    ["learned", "learned_range", "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"];

impl Settings {
    pub(super) fn from_config(config: &SchedulerConfig) -> Result<Self, DiffusionError> {
        config.must_be_off(&["thresholding", "use_beta_sigmas", "use_dynamic_shifting"])?;
        // Whatever the variance, the step is handed the mean alone (see `Scheduler::step`). Where it is learned, diffusers
        // then takes the first three channels of what it gets, and so fails with latents of four.
        if config.is_set("variance_type") {
            config.choice("variance_type", &VARIANCE_TYPES.map(|word| (word, ())), ())?;
        }
        let order = match config.whole_number("solver_order", 2)? {
            order @ 1..=3 => order,
            other => return Err(unsupported("solver_order", other, "1, 2, 3")),
        };
        let algorithm = algorithm(config)?;
        let final_sigmas = [("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)];
        let final_sigma = config.choice("final_sigmas_type", &final_sigmas, FinalSigma::Zero)?;
        if algorithm == Algorithm::Noise && final_sigma == FinalSigma::Zero {
            let found = "zero, which algorithm_type dpmsolver cannot reach";
            return Err(unsupported("final_sigmas_type", found, "sigma_min"));
        }
        let spacing = TimestepSpacing::from_config(config, TimestepSpacing::Linspace)?;
        let (steps_offset, most) = (spacing.steps_offset(config)?, config.num_train_timesteps()?);
        if steps_offset > most {
            let supported = format_args!("at most num_train_timesteps, {most}");
            return Err(unsupported("steps_offset", steps_offset, supported));
        }
        let sigma_schedule = sigma_schedule(config)?;
        Ok(Self {
            algorithm,
            order,
            solver_type: solver_type(config)?,
            prediction: match (sigma_schedule, algorithm) {
                (SigmaSchedule::Flow, Algorithm::Clean) => PredictionType::at_flow_sigmas(config)?,
                _ => PredictionType::from_config(config)?,
            },
            sigma_schedule,
            flow_shift: match sigma_schedule {
                SigmaSchedule::Flow => config.positive("flow_shift", 1.0, f64::INFINITY)?,
                _ => 1.0,
            },
            final_sigma,
            lower_order_final: config.boolean("lower_order_final", true)?,
            euler_at_final: config.boolean("euler_at_final", false)?,
            spacing,
            steps_offset,
            lambda_min: config.number("lambda_min_clipped", f64::NEG_INFINITY)? as f32,
            round_timesteps: !BetaSchedule::is_squared_cosine(config),
            rescale_betas_zero_snr: config.boolean("rescale_betas_zero_snr", false)?,
        })
    }
}

fn algorithm(config: &SchedulerConfig) -> Result<Algorithm, DiffusionError> {
    let choices = [
        ("dpmsolver++", Some(Algorithm::Clean)),
        ("dpmsolver", Some(Algorithm::Noise)),
        // What diffusers makes of a DEIS config.
        ("deis", Some(Algorithm::Clean)),
        ("sde-dpmsolver", None),
        ("sde-dpmsolver++", None),
    ];
    config.choice("algorithm_type", &choices, Some(Algorithm::Clean))?.ok_or_else(|| {
        let found = "sde-dpmsolver or sde-dpmsolver++, whose fresh noise at every step a seed does not \
                     bring back";
        unsupported("algorithm_type", found, "dpmsolver++, dpmsolver")
    })
}

fn solver_type(config: &SchedulerConfig) -> Result<SolverType, DiffusionError> {
    let choices = [
        ("midpoint", SolverType::Midpoint),
        ("heun", SolverType::Heun),
        // What diffusers makes of DEIS and UniPC configs.
        ("logrho", SolverType::Midpoint),
        ("bh1", SolverType::Midpoint),
        ("bh2", SolverType::Midpoint),
    ];
    config.choice("solver_type", &choices, SolverType::Midpoint)
}

fn sigma_schedule(config: &SchedulerConfig) -> Result<SigmaSchedule, DiffusionError> {
    let mut chosen = None;
    for (key, schedule) in [
        ("use_karras_sigmas", SigmaSchedule::Karras),
        ("use_exponential_sigmas", SigmaSchedule::Exponential),
        ("use_lu_lambdas", SigmaSchedule::Lu),
        ("use_flow_sigmas", SigmaSchedule::Flow),
    ] {
        if !config.boolean(key, false)? {
            continue;
        }
        if let Some((first, _)) = chosen.replace((key, schedule)) {
            return Err(unsupported(key, format_args!("true beside {first}"), "one of the two"));
        }
    }
    Ok(chosen.map_or(SigmaSchedule::Timesteps, |(_, schedule)| schedule))
}
