//! The noise levels of a flow-matching run: the share of noise in the sample, from 1 down to 0.
//!
//! Follows diffusers 0.42.1:
//!
//! * scheduling_flow_match_euler_discrete.py: `FlowMatchEulerDiscreteScheduler.__init__` (lines 91-144),
//!   `set_timesteps` (283-391), `stretch_shift_to_terminal` (262-281), `_convert_to_karras` (534-570) and
//!   `_convert_to_exponential` (573-604):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//! * scheduling_flow_match_heun_discrete.py: `FlowMatchHeunDiscreteScheduler.set_timesteps` (lines 139-177):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//! * `calculate_shift` (lines 73-83):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux/pipeline_flux.py#L73>
//! * `compute_empirical_mu` (lines 62-77):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2_klein.py#L62>
//!
//! f32 and f64 are where NumPy and PyTorch have them in diffusers: levels that the scheduler spreads itself
//! are f64 until the end, levels that the pipeline hands in are f32 from the start.

use crate::DiffusionError;
use crate::schedulers::SchedulerKind;
use crate::schedulers::config::{SchedulerConfig, unsupported};
use crate::schedulers::schedule::{FlowSigmas, Schedule};

/// The exponent of Karras et al., arXiv 2206.00364.
const KARRAS_RHO: f64 = 7.0;

/// How levels are shifted towards noise: the more pixels a picture has, the more noise it takes to hide as much of it.
#[derive(Debug, Clone, Copy)]
enum Shift {
    Fixed(f64),
    /// By a weight that depends on the picture's size.
    Dynamic(f64),
}

/// Levels in the arithmetic of NumPy arrays: f64, or f32 with every result rounded. (Rounding the f64
/// result of one operation on f32 values is f32 arithmetic.)
#[derive(Debug, Clone)]
struct Levels {
    values: Vec<f64>,
    single: bool,
}

impl Levels {
    /// The rounding of every result.
    fn rounding(&self) -> impl Fn(f64) -> f64 + use<> {
        let single = self.single;
        move |value| if single { f64::from(value as f32) } else { value }
    }

    fn map(&mut self, formula: impl Fn(&dyn Fn(f64) -> f64, f64) -> f64) {
        let round = self.rounding();
        self.values.iter_mut().for_each(|value| *value = formula(&round, *value));
    }

    fn shift(&mut self, shift: Shift) {
        self.map(|round, sigma| match shift {
            Shift::Fixed(shift) => {
                let (shift, less) = (round(shift), round(shift - 1.0));
                round(round(shift * sigma) / round(1.0 + round(less * sigma)))
            }
            Shift::Dynamic(weight) => {
                let weight = round(weight);
                round(weight / round(weight + round(round(1.0 / sigma) - 1.0)))
            }
        });
    }

    /// Stretches the levels so that the last one is `terminal`.
    fn stretch(&mut self, terminal: f64) {
        let Some(last) = self.values.last().copied() else { return };
        let round = self.rounding();
        let factor = round(round(1.0 - last) / round(1.0 - terminal));
        self.map(|round, sigma| round(1.0 - round(round(1.0 - sigma) / factor)));
    }

    /// Spreads levels of the same range by a rule of their own.
    fn respread(&mut self, rule: impl Fn(f64) -> f64, inverse: impl Fn(f64) -> f64) {
        let (Some(first), Some(last)) = (self.values.first().copied(), self.values.last().copied()) else { return };
        let steps = self.values.len();
        *self = Self { values: linspace(rule(first), rule(last), steps), single: false };
        self.values.iter_mut().for_each(|value| *value = inverse(*value));
    }
}

/// The levels of a `FlowMatchEulerDiscreteScheduler` run and the last one, where no noise is left.
pub(super) fn euler_sigmas(config: &SchedulerConfig, schedule: &Schedule) -> Result<Vec<f32>, DiffusionError> {
    config.must_be_off(&["use_beta_sigmas", "invert_sigmas", "stochastic_sampling"])?;
    let shift = shift(config, schedule)?;
    let mut levels = match schedule.sigmas {
        FlowSigmas::Scheduler => trained_levels(config, fixed_part(shift), schedule.steps)?,
        FlowSigmas::Even | FlowSigmas::EvenForSolvers | FlowSigmas::EvenWithOwnShift => {
            let values = linspace(1.0, 1.0 / schedule.steps as f64, schedule.steps);
            Levels { values: values.into_iter().map(|value| f64::from(value as f32)).collect(), single: true }
        }
    };
    levels.shift(shift);
    if config.is_set("shift_terminal") && !config.is_off("shift_terminal") {
        let terminal = config.number("shift_terminal", 0.0)?;
        if !(0.0..1.0).contains(&terminal) {
            return Err(unsupported("shift_terminal", terminal, "null or a number from 0, less than 1"));
        }
        // 0 is no terminal in diffusers.
        if terminal > 0.0 {
            if schedule.steps == 1 {
                return Err(DiffusionError::InferenceSteps(format!(
                    "num_inference_steps is 1; the model's scheduler_config.json has a shift_terminal, {terminal}, at which noise \
                     levels end that begin at 1, so it takes at least 2 steps"
                )));
            }
            levels.stretch(terminal);
        }
    }
    match (config.boolean("use_karras_sigmas", false)?, config.boolean("use_exponential_sigmas", false)?) {
        (true, true) => return Err(unsupported("use_karras_sigmas", true, "one of the kinds of sigmas")),
        (true, false) => levels.respread(|sigma| sigma.powf(1.0 / KARRAS_RHO), |value| value.powf(KARRAS_RHO)),
        (false, true) => levels.respread(f64::ln, f64::exp),
        (false, false) => {}
    }
    finish(levels)
}

/// The levels of a `FlowMatchHeunDiscreteScheduler` run, every one but the first twice, and the last one.
pub(super) fn heun_sigmas(config: &SchedulerConfig, schedule: &Schedule) -> Result<Vec<f32>, DiffusionError> {
    if !SchedulerKind::FlowMatchHeun.takes(schedule.sigmas) {
        return Err(DiffusionError::Scheduler(
            "FlowMatchHeunDiscreteScheduler spreads its own noise levels, and this model's pipeline gives its own; \
             use FlowMatchEulerDiscreteScheduler"
                .into(),
        ));
    }
    let shift = Shift::Fixed(config.positive("shift", 1.0, f64::INFINITY)?);
    let mut levels = trained_levels(config, fixed_part(shift), schedule.steps)?;
    levels.shift(shift);
    finish(levels)
}

/// What levels of a solver are shifted by, in the place of this configuration's own class. diffusers' pipelines hand it the
/// exponent that they compute, which such a solver takes only where shifting is exponential.
pub(in crate::schedulers) fn flow_shift(config: &SchedulerConfig, schedule: &Schedule) -> Result<f64, DiffusionError> {
    if config.boolean("use_dynamic_shifting", false)? {
        config.choice("time_shift_type", &[("exponential", ())], ())?;
    }
    Ok(match shift(config, schedule)? {
        Shift::Fixed(shift) | Shift::Dynamic(shift) => shift,
    })
}

fn shift(config: &SchedulerConfig, schedule: &Schedule) -> Result<Shift, DiffusionError> {
    if !config.boolean("use_dynamic_shifting", false)? {
        return Ok(Shift::Fixed(config.positive("shift", 1.0, f64::INFINITY)?));
    }
    let mu = match schedule.sigmas {
        FlowSigmas::EvenWithOwnShift => empirical_shift(schedule),
        FlowSigmas::Scheduler | FlowSigmas::Even | FlowSigmas::EvenForSolvers => shift_by_tokens(config, schedule)?,
    };
    let exponential = Shift::Dynamic(mu.exp());
    config.choice("time_shift_type", &[("exponential", exponential), ("linear", Shift::Dynamic(mu))], exponential)
}

/// On the line through the configuration's two numbers of tokens.
fn shift_by_tokens(config: &SchedulerConfig, schedule: &Schedule) -> Result<f64, DiffusionError> {
    let (base_shift, max_shift) = (config.number("base_shift", 0.5)?, config.number("max_shift", 1.15)?);
    let base_tokens = config.whole_number("base_image_seq_len", 256)?;
    let max_tokens = config.whole_number("max_image_seq_len", 4096)?;
    if max_tokens <= base_tokens {
        return Err(unsupported("max_image_seq_len", max_tokens, "more than base_image_seq_len"));
    }
    let slope = (max_shift - base_shift) / (max_tokens - base_tokens) as f64;
    Ok(schedule.image_tokens as f64 * slope + (base_shift - slope * base_tokens as f64))
}

/// As FLUX.2's pipelines have it: lines that were fitted to runs of 10 and of 200 steps, and a line between them. Large
/// pictures take that of 200 steps whatever theirs are.
fn empirical_shift(schedule: &Schedule) -> f64 {
    const MOST_TOKENS: usize = 4300;
    let line = |slope: f64, start: f64| slope * schedule.image_tokens as f64 + start;
    let of_200 = line(0.00016927, 0.45666666);
    if schedule.image_tokens > MOST_TOKENS {
        return of_200;
    }
    let slope = (of_200 - line(8.73809524e-05, 1.89833333)) / 190.0;
    slope * schedule.steps as f64 + (of_200 - 200.0 * slope)
}

/// What the ends of the training schedule are shifted by: dynamic shifting leaves them alone.
fn fixed_part(shift: Shift) -> f32 {
    match shift {
        Shift::Fixed(shift) => shift as f32,
        Shift::Dynamic(_) => 1.0,
    }
}

/// Levels spread evenly over the training schedule, whose ends are shifted already. [`Levels::shift`] comes on top, so
/// that a fixed shift acts twice on the lowest level, as in diffusers.
fn trained_levels(config: &SchedulerConfig, shift: f32, steps: usize) -> Result<Levels, DiffusionError> {
    let train_timesteps = config.num_train_timesteps()?;
    let end = |timestep: f32| {
        let sigma = timestep / train_timesteps as f32;
        f64::from(shift * sigma / (1.0 + (shift - 1.0) * sigma)) * train_timesteps as f64
    };
    let mut values = linspace(end(train_timesteps as f32), end(1.0), steps);
    values.iter_mut().for_each(|value| *value /= train_timesteps as f64);
    Ok(Levels { values, single: false })
}

/// `count` numbers from `first` to `last`, as NumPy spaces them.
fn linspace(first: f64, last: f64, count: usize) -> Vec<f64> {
    let step = (last - first) / (count.max(2) - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|index| index as f64 * step + first).collect();
    if let [_, .., end] = values.as_mut_slice() {
        *end = last;
    }
    values
}

fn finish(levels: Levels) -> Result<Vec<f32>, DiffusionError> {
    let sigmas: Vec<f32> = levels.values.iter().map(|sigma| *sigma as f32).chain([0.0]).collect();
    if let Some(sigma) = sigmas.iter().find(|sigma| !sigma.is_finite()) {
        return Err(DiffusionError::InferenceSteps(format!(
            "{} steps lead to a noise level of {sigma} with this model's scheduler_config.json",
            levels.values.len()
        )));
    }
    Ok(sigmas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spaced_evenly_and_end_exactly() {
        assert_eq!(linspace(1.0, 0.25, 4), [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(linspace(0.3, 0.1, 1), [0.3]);
        assert_eq!(linspace(0.7, 0.1, 8).last(), Some(&0.1));
    }

    /// Values of diffusers' `compute_empirical_mu`, and of its scheduler.
    #[test]
    fn a_shift_of_the_pipelines_own_depends_on_tokens_and_steps() {
        let schedule = |image_tokens, steps| Schedule { steps, image_tokens, sigmas: FlowSigmas::EvenWithOwnShift };
        for (image_tokens, steps, mu) in
            [(4096, 4, 2.291180), (4096, 50, 2.023351), (1024, 4, 2.030690), (8100, 50, 1.827754)]
        {
            let found = empirical_shift(&schedule(image_tokens, steps));
            assert!((found - mu).abs() < 1e-6, "{found} for {mu}");
        }
        let config = SchedulerConfig::from_json(r#"{"use_dynamic_shifting": true, "shift": 3.0}"#).unwrap();
        let sigmas = euler_sigmas(&config, &schedule(1024, 4)).unwrap();
        for (sigma, expected) in sigmas.iter().zip([1.0, 0.958085, 0.883982, 0.717497, 0.0]) {
            assert!((sigma - expected).abs() < 1e-6, "{sigma} for {expected}");
        }
        let fixed = SchedulerConfig::from_json(r#"{"shift": 3.0}"#).unwrap();
        assert_eq!(euler_sigmas(&fixed, &schedule(1024, 2)).unwrap(), [1.0, 0.75, 0.0]);
    }

    /// diffusers divides 0 by 0 there.
    #[test]
    fn a_single_step_cannot_both_begin_and_end() {
        let sigmas = |keys: &str, steps, sigmas| {
            euler_sigmas(&SchedulerConfig::from_json(keys).unwrap(), &Schedule { sigmas, ..Schedule::new(steps) })
        };
        let keys = r#"{"shift_terminal": 0.02}"#;
        for kind in [FlowSigmas::Even, FlowSigmas::Scheduler] {
            let error = sigmas(keys, 1, kind).unwrap_err();
            assert!(matches!(error, DiffusionError::InferenceSteps(_)), "{error:?}");
            let message = error.to_string();
            assert!(
                message.starts_with("num_inference_steps is 1; ") && message.contains("shift_terminal"),
                "{message}"
            );
            assert!(message.ends_with("at least 2 steps"), "{message}");
            assert!((sigmas(keys, 2, kind).unwrap()[1] - 0.02).abs() < 1e-6);
        }
        assert_eq!(sigmas("{}", 1, FlowSigmas::Even).unwrap(), [1.0, 0.0]);
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        let schedule = Schedule::new(4);
        for (keys, key) in [
            (r#"{"use_beta_sigmas": true}"#, "use_beta_sigmas"),
            (r#"{"invert_sigmas": true}"#, "invert_sigmas"),
            (r#"{"stochastic_sampling": true}"#, "stochastic_sampling"),
            (r#"{"shift": 0}"#, "shift"),
            (r#"{"shift_terminal": 1}"#, "shift_terminal"),
            (r#"{"shift_terminal": true}"#, "shift_terminal"),
            (r#"{"use_karras_sigmas": true, "use_exponential_sigmas": true}"#, "use_karras_sigmas"),
            (r#"{"use_dynamic_shifting": true, "time_shift_type": "cubic"}"#, "time_shift_type"),
            (r#"{"use_dynamic_shifting": true, "max_image_seq_len": 256}"#, "max_image_seq_len"),
        ] {
            let config = SchedulerConfig::from_json(keys).unwrap();
            let message = euler_sigmas(&config, &schedule).unwrap_err().to_string();
            assert!(message.contains(key), "{keys}: {message}");
        }
    }
}
