//! What commands that measure pictures have in common: flags and their bounds, which flag is behind a fault, the bar that
//! shows how far they are, and what ends them early.

use afterimage_runner::{RequestError, Seeds};
use afterimage_study::StudyError;
use indicatif::{ProgressBar, ProgressStyle};

use super::within::count;

/// As in requests.
const MOST_STEPS: usize = 200;
pub(super) const MOST_REPEATS: usize = 1000;
const MOST_GUIDANCE: f64 = 20.0;

/// What all pictures have in common.
#[derive(Debug, clap::Args)]
pub(super) struct PictureArgs {
    /// Denoising steps, 1 to 200 [default: the model's, unless a preset has its own]
    #[arg(long, env = "AFTERIMAGE_STEPS", hide_env_values = true, value_parser = count::<1, MOST_STEPS>)]
    pub(super) steps: Option<usize>,
    /// Strength of classifier-free guidance, 0 to 20; up to 1 (of Z-Image at 0) it is off [default: the model's, unless a
    /// preset has its own]
    #[arg(long, env = "AFTERIMAGE_GUIDANCE_SCALE", hide_env_values = true, allow_negative_numbers = true,
        value_name = "SCALE", value_parser = scale)]
    pub(super) guidance_scale: Option<f64>,
    /// Strength of guidance by a second forward, for FLUX.1 and Qwen-Image: 0 to 20; up to 1 it is off [default: 1]
    #[arg(long, env = "AFTERIMAGE_TRUE_CFG_SCALE", hide_env_values = true, allow_negative_numbers = true,
        value_name = "SCALE", value_parser = scale)]
    pub(super) true_cfg_scale: Option<f64>,
}

impl PictureArgs {
    /// What the second forward is told: nothing to avoid, in the way models want to be told.
    pub(super) fn negative_prompt(&self) -> Option<String> {
        self.true_cfg_scale.filter(|scale| *scale > 1.0).map(|_| " ".to_owned())
    }
}

/// A value of `--seeds`.
pub(super) fn seed(text: &str) -> Result<u64, String> {
    let found = text.trim().parse().ok().filter(|seed| *seed <= Seeds::LARGEST);
    found.ok_or_else(|| format!("it must be an integer from 0 to {}", Seeds::LARGEST))
}

/// Each seed once, in the order they were given.
pub(super) fn distinct(seeds: &[u64]) -> Vec<u64> {
    let mut distinct = Vec::new();
    for seed in seeds {
        if !distinct.contains(seed) {
            distinct.push(*seed);
        }
    }
    distinct
}

/// A strength of guidance.
fn scale(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|scale| (0.0..=MOST_GUIDANCE).contains(scale));
    found.ok_or_else(|| format!("it must be a number from 0 to {MOST_GUIDANCE}"))
}

/// Names the flag instead of the request field.
pub(super) fn flag_of(RequestError { param, message, .. }: &RequestError) -> String {
    let flag = match &**param {
        "prompt" => "--prompts",
        "num_inference_steps" => "--steps",
        "seed" => "--seeds",
        "guidance_scale" => "--guidance-scale",
        "true_cfg_scale" | "negative_prompt" => "--true-cfg-scale",
        "scheduler" => "--scheduler",
        "size" => "--buckets",
        other => return format!("{other}: {message}"),
    };
    format!("{flag}: {message}")
}

/// How far the pictures are; `left` follows the time.
pub(super) fn bar(pictures: usize, left: &str) -> ProgressBar {
    let template = format!("{{bar:30}} {{pos}}/{{len}} pictures, {{eta}} {left}, {{msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template is one that indicatif understands");
    ProgressBar::new(pictures as u64).with_style(style)
}

/// Why it ended early.
pub(super) fn reason(error: &StudyError) -> String {
    match error {
        StudyError::Cancelled => "interrupted".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_drawn_once() {
        assert_eq!(distinct(&[2, 1, 2]), [2, 1]);
    }

    #[test]
    fn guidance_that_is_off_needs_no_second_prompt() {
        for (scale, prompt) in [(None, None), (Some(1.0), None), (Some(4.0), Some(" "))] {
            let pictures = PictureArgs { steps: None, guidance_scale: None, true_cfg_scale: scale };
            assert_eq!(pictures.negative_prompt().as_deref(), prompt);
        }
    }
}
