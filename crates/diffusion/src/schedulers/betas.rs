//! The training noise schedule: how much of the picture is left at each timestep.
//!
//! Follows diffusers 0.42.1, `betas_for_alpha_bar` (lines 51-100), `rescale_zero_terminal_snr` (103-136) and
//! `DDIMScheduler.__init__` (193-243):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/schedulers/scheduling_ddim.py#L51>
//!
//! Three schedules are in use: linear betas (Ho et al., arXiv 2006.11239), betas whose square roots
//! are linear (latent diffusion) and the cosine schedule (Nichol and Dhariwal, arXiv 2102.09672).
//! The arithmetic repeats PyTorch's: betas in f32, their product accumulated in f64.

use super::config::{SchedulerConfig, unsupported};
use crate::DiffusionError;

/// Largest beta of the cosine schedule, from its paper.
const MAX_COSINE_BETA: f64 = 0.999;

/// Where the betas come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BetaSchedule {
    Linear,
    ScaledLinear,
    SquaredCosine,
}

impl BetaSchedule {
    pub(super) fn from_config(config: &SchedulerConfig) -> Result<Self, DiffusionError> {
        let choices = [
            ("linear", Self::Linear),
            ("scaled_linear", Self::ScaledLinear),
            ("squaredcos_cap_v2", Self::SquaredCosine),
        ];
        config.choice("beta_schedule", &choices, Self::Linear)
    }

    /// Whether the key names the cosine schedule, also where trained betas replace it.
    pub(super) fn is_squared_cosine(config: &SchedulerConfig) -> bool {
        config.says("beta_schedule", "squaredcos_cap_v2")
    }

    fn betas(self, config: &SchedulerConfig, len: usize) -> Result<Vec<f32>, DiffusionError> {
        let ends = || -> Result<(f64, f64), DiffusionError> {
            Ok((config.positive("beta_start", 0.0001, 1.0)?, config.positive("beta_end", 0.02, 1.0)?))
        };
        Ok(match self {
            Self::Linear => {
                let (start, end) = ends()?;
                linspace(start, end, len)
            }
            Self::ScaledLinear => {
                let (start, end) = ends()?;
                linspace(start.sqrt(), end.sqrt(), len).into_iter().map(|root| root * root).collect()
            }
            Self::SquaredCosine => {
                let signal = |index: usize| {
                    let time = index as f64 / len as f64;
                    ((time + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2)
                };
                let beta = |index| (1.0 - signal(index + 1) / signal(index)).min(MAX_COSINE_BETA) as f32;
                (0..len).map(beta).collect()
            }
        })
    }
}

/// `alphas_cumprod`: for each training timestep the share of the picture's variance, falling from
/// nearly 1 to nearly 0 (to 0 exactly with `rescale_betas_zero_snr`).
pub(super) fn alphas_cumprod(config: &SchedulerConfig) -> Result<Vec<f32>, DiffusionError> {
    let len = config.num_train_timesteps()?;
    let betas = match config.numbers("trained_betas")? {
        Some(trained) => trained_betas(&trained, len)?,
        None => BetaSchedule::from_config(config)?.betas(config, len)?,
    };
    let alphas: Vec<f32> = betas.iter().map(|beta| 1.0 - beta).collect();
    if config.boolean("rescale_betas_zero_snr", false)? {
        return Ok(zero_terminal_snr(&cumulative_product(&alphas)));
    }
    Ok(cumulative_product(&alphas))
}

fn trained_betas(trained: &[f64], len: usize) -> Result<Vec<f32>, DiffusionError> {
    if trained.len() != len {
        return Err(unsupported(
            "trained_betas",
            format_args!("a list of {}", trained.len()),
            format_args!("as many numbers as num_train_timesteps, {len}"),
        ));
    }
    match trained.iter().find(|beta| **beta <= 0.0 || **beta >= 1.0 || beta.is_nan()) {
        Some(beta) => Err(unsupported("trained_betas", format_args!("a list with {beta}"), "0 < beta < 1")),
        None => Ok(trained.iter().map(|beta| *beta as f32).collect()),
    }
}

/// Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891,
/// algorithm 1: shifts and scales the signal's amplitude so that nothing is left at the last timestep.
/// Takes and returns `alphas_cumprod`; going through betas in between only costs bits, but diffusers'
/// bits are what is wanted.
fn zero_terminal_snr(alphas_cumprod: &[f32]) -> Vec<f32> {
    let mut amplitudes: Vec<f32> = alphas_cumprod.iter().map(|alpha| alpha.sqrt()).collect();
    if let [first, .., last] = amplitudes[..] {
        let scale = first / (first - last);
        amplitudes.iter_mut().for_each(|amplitude| *amplitude = (*amplitude - last) * scale);
    }
    let squares: Vec<f32> = amplitudes.iter().map(|amplitude| amplitude * amplitude).collect();
    let ratios = squares.windows(2).map(|pair| pair[1] / pair[0]);
    let betas = squares.first().copied().into_iter().chain(ratios).map(|alpha| 1.0 - alpha);
    cumulative_product(&betas.map(|beta| 1.0 - beta).collect::<Vec<f32>>())
}

fn cumulative_product(factors: &[f32]) -> Vec<f32> {
    let multiply = |product: &mut f64, factor: &f32| {
        *product *= f64::from(*factor);
        Some(*product as f32)
    };
    factors.iter().scan(1.0, multiply).collect()
}

/// `torch.linspace` in f32, which counts from whichever end is nearer.
fn linspace(start: f64, end: f64, len: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (len - 1) as f32;
    let value = |index: usize| match index < len / 2 {
        true => step.mul_add(index as f32, start),
        false => (-step).mul_add((len - 1 - index) as f32, end),
    };
    (0..len).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alphas(text: &str) -> Vec<f32> {
        alphas_cumprod(&SchedulerConfig::from_json(text).unwrap()).unwrap()
    }

    #[test]
    fn every_schedule_falls_from_near_one() {
        for schedule in ["linear", "scaled_linear", "squaredcos_cap_v2"] {
            let alphas = alphas(&format!("{{\"beta_schedule\": {schedule:?}}}"));
            assert_eq!(alphas.len(), 1000);
            assert!(alphas[0] > 0.99 && alphas[999] > 0.0 && alphas[999] < 0.01, "{schedule}");
            assert!(alphas.windows(2).all(|pair| pair[1] < pair[0]), "{schedule}");
        }
    }

    #[test]
    fn zero_terminal_snr_ends_at_zero_and_keeps_the_start() {
        let (plain, rescaled) = (alphas("{}"), alphas(r#"{"rescale_betas_zero_snr": true}"#));
        assert_eq!(rescaled[999], 0.0);
        assert!((rescaled[0] - plain[0]).abs() < 1e-6);
    }

    #[test]
    fn trained_betas_replace_the_schedule() {
        let text = r#"{"num_train_timesteps": 3, "trained_betas": [0.5, 0.5, 0.25], "beta_schedule": "linear"}"#;
        assert_eq!(alphas(text), [0.5, 0.25, 0.1875]);
    }
}
