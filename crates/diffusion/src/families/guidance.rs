//! How images are steered towards their prompts.
//!
//! Follows diffusers 0.42.1:
//!
//! * `DiTPipeline.__call__` (lines 101-251):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/dit/pipeline_dit.py#L101>
//! * pipeline_stable_diffusion_3.py: `StableDiffusion3Pipeline.__call__` (lines 772-1152):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/stable_diffusion_3>
//! * `FluxPipeline.__call__` (lines 600-973):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux/pipeline_flux.py#L600>
//! * `ZImagePipeline.__call__` (lines 300-620):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/z_image/pipeline_z_image.py#L300>
//! * `QwenImagePipeline.__call__` (lines 397-766):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/qwenimage/pipeline_qwenimage.py#L397>
//! * `Flux2KleinPipeline.__call__` (lines 607-917):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2_klein.py#L607>
//!
//! Classifier-free guidance mixes two predictions: one for the prompt, and one for what is steered away
//! from. Most models make both in one forward, as two rows. Distilled ones (FLUX) have learned the mixture
//! and are conditioned on its scale; classifier-free guidance on top of that, diffusers' `true_cfg_scale`, is a
//! second forward of the same step, with decisions of its own about what is computed. Qwen-Image has nothing else, and
//! gives the mixture the length that the prompt's prediction had, token by token. FLUX.2 klein's base models make that second
//! forward too, always for the empty prompt.

use afterimage_cache::{Term, combined_on_gpu};
use candle_core::{Result, Tensor};

/// What guidance a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuidanceKind {
    /// None: it has no unconditional input.
    None,
    /// Away from the null class.
    Class,
    /// Away from a negative prompt, which may be empty.
    NegativePrompt,
    /// The same, with a scale that counts from the prompt's own prediction on: 0 is none, and every other is one less
    /// than elsewhere.
    BeyondPrompt,
    /// Away from the empty prompt, in a second forward.
    EmptyPrompt,
    /// Distilled.
    Distilled {
        /// The model is conditioned on the scale. Otherwise there is none to choose.
        is_told: bool,
        /// Away from a negative prompt where a second forward is asked for.
        takes_true_cfg: bool,
    },
    /// Away from a negative prompt that the request has, even an empty one, in a second forward (`true_cfg_scale`).
    Rescaled {
        /// Side of the square of latents that makes a token.
        token_side: usize,
    },
}

/// The guidance of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Guidance {
    /// By this scale, with a second row in the same forward; 1 or less: none, and no second row.
    Rows(f64),
    /// The same, with a scale that counts from the prompt's own prediction on; 0: none, and no second row.
    BeyondPrompt(f64),
    /// By this scale, with a second forward; 1 or less: none.
    Forwards(f64),
    /// As the model was distilled to.
    Distilled {
        /// The scale the model is conditioned on, if it is on any.
        scale: f64,
        /// By this scale, with a second forward; 1 or less: none.
        true_cfg_scale: f64,
    },
    /// By this scale, with a second forward, and to the length of the prompt's prediction; 1 or less: none.
    Rescaled {
        /// The scale.
        true_cfg_scale: f64,
        /// Side of the square of latents that makes a token.
        token_side: usize,
    },
}

impl GuidanceKind {
    /// The guidance of an image of such a model. Scales that the model has no use for are left out.
    pub fn with(self, guidance_scale: f64, true_cfg_scale: f64) -> Guidance {
        match self {
            Self::None => Guidance::Rows(1.0),
            Self::Class | Self::NegativePrompt => Guidance::Rows(guidance_scale),
            Self::BeyondPrompt => Guidance::BeyondPrompt(guidance_scale),
            Self::EmptyPrompt => Guidance::Forwards(guidance_scale),
            Self::Distilled { .. } => Guidance::Distilled { scale: guidance_scale, true_cfg_scale },
            Self::Rescaled { token_side } => Guidance::Rescaled { true_cfg_scale, token_side },
        }
    }

    /// `guidance_scale` means something to it, if only that it is off.
    pub fn takes_guidance_scale(self) -> bool {
        !matches!(self, Self::Rescaled { .. })
    }

    /// It can be guided by a second forward.
    pub fn takes_true_cfg(self) -> bool {
        matches!(self, Self::Distilled { takes_true_cfg: true, .. } | Self::Rescaled { .. })
    }

    /// A blank negative prompt is one too, and there is no guidance without one.
    pub fn needs_negative_prompt(self) -> bool {
        matches!(self, Self::Rescaled { .. })
    }

    /// What is steered away from can be a text.
    pub fn takes_negative_prompt(self) -> bool {
        matches!(self, Self::NegativePrompt | Self::BeyondPrompt) || self.takes_true_cfg()
    }

    /// The largest scale at which there is no guidance.
    pub fn neutral_scale(self) -> f64 {
        if self == Self::BeyondPrompt { 0.0 } else { 1.0 }
    }
}

impl Guidance {
    /// What the model was asked to be guided by, as `guidance_scale`; `None` if it takes none.
    pub fn scale(self) -> Option<f64> {
        match self {
            Self::Rows(scale) | Self::BeyondPrompt(scale) | Self::Forwards(scale) | Self::Distilled { scale, .. } => {
                Some(scale)
            }
            Self::Rescaled { .. } => None,
        }
    }

    /// What was asked for as `true_cfg_scale`; `None` without a second forward for it.
    pub fn true_cfg_scale(self) -> Option<f64> {
        self.mixing_scale().filter(|_| matches!(self, Self::Distilled { .. } | Self::Rescaled { .. }))
    }

    /// The strength of classifier-free guidance; `None` where there is only the prompt's prediction.
    pub fn mixing_scale(self) -> Option<f64> {
        let scale = match self {
            Self::Rows(scale)
            | Self::Forwards(scale)
            | Self::Distilled { true_cfg_scale: scale, .. }
            | Self::Rescaled { true_cfg_scale: scale, .. } => scale,
            Self::BeyondPrompt(scale) => 1.0 + scale,
        };
        (scale > 1.0).then_some(scale)
    }

    /// Rows of an image in one step, all forwards together.
    pub fn rows(self) -> usize {
        if self.mixing_scale().is_some() { 2 } else { 1 }
    }

    /// Rows of an image in one forward.
    pub fn rows_per_forward(self) -> usize {
        match self {
            Self::Rows(_) | Self::BeyondPrompt(_) => self.rows(),
            Self::Forwards(_) | Self::Distilled { .. } | Self::Rescaled { .. } => 1,
        }
    }

    /// The two predictions come from two forwards.
    pub fn has_second_forward(self) -> bool {
        self.rows() > self.rows_per_forward()
    }

    /// What is stepped along, from the predictions for the prompt and for what is steered away from, `[1, channels, height,
    /// width]` each.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn mix(self, cond: &Tensor, uncond: &Tensor) -> Result<Tensor> {
        let Some(scale) = self.mixing_scale() else { return Ok(cond.clone()) };
        let mixed = match combined_on_gpu(&[Term::new(1.0, uncond), Term::of_difference(scale, cond, uncond)])? {
            Some(mixed) => mixed,
            None => (uncond + ((cond - uncond)? * scale)?)?,
        };
        match self {
            Self::Rows(_) | Self::BeyondPrompt(_) | Self::Forwards(_) | Self::Distilled { .. } => Ok(mixed),
            Self::Rescaled { token_side, .. } => as_long_as(&mixed, cond, token_side),
        }
    }
}

/// `mixed` with every token as long as that of `cond`.
fn as_long_as(mixed: &Tensor, cond: &Tensor, side: usize) -> Result<Tensor> {
    let (rows, channels, height, width) = mixed.dims4()?;
    // Rows and columns of tokens in dimensions of their own.
    let in_tokens = [rows, channels, height / side, side, width / side, side];
    let (mixed, cond) = (mixed.reshape(&in_tokens)?, cond.reshape(&in_tokens)?);
    let lengths = |tokens: &Tensor| tokens.sqr()?.sum_keepdim((1, 3, 5))?.sqrt();
    mixed.broadcast_mul(&(lengths(&cond)? / lengths(&mixed)?)?)?.reshape((rows, channels, height, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_kinds_of_guidance_make_a_second_forward() {
        let distilled = GuidanceKind::Distilled { is_told: true, takes_true_cfg: true };
        for (guidance, rows, rows_per_forward) in [
            (GuidanceKind::Class.with(4.0, 1.0), 2, 2),
            (GuidanceKind::NegativePrompt.with(1.0, 1.0), 1, 1),
            (GuidanceKind::None.with(1.0, 1.0), 1, 1),
            (GuidanceKind::BeyondPrompt.with(0.5, 1.0), 2, 2),
            (GuidanceKind::BeyondPrompt.with(0.0, 1.0), 1, 1),
            (GuidanceKind::EmptyPrompt.with(4.0, 1.0), 2, 1),
            (GuidanceKind::EmptyPrompt.with(1.0, 1.0), 1, 1),
            (distilled.with(3.5, 1.0), 1, 1),
            (distilled.with(0.0, 3.0), 2, 1),
            (GuidanceKind::Rescaled { token_side: 2 }.with(5.0, 1.0), 1, 1),
            (GuidanceKind::Rescaled { token_side: 2 }.with(1.0, 4.0), 2, 1),
        ] {
            assert_eq!((guidance.rows(), guidance.rows_per_forward()), (rows, rows_per_forward), "{guidance:?}");
            assert_eq!(guidance.has_second_forward(), rows > rows_per_forward, "{guidance:?}");
        }
    }

    #[test]
    fn a_rescaled_mixture_is_as_long_as_the_prompts_prediction() {
        let values = |phase: f64| {
            let numbers = Tensor::arange(0f32, 3.0 * 4.0 * 6.0, &candle_core::Device::Cpu).unwrap();
            numbers.affine(0.37, phase).unwrap().sin().unwrap().reshape((1, 3, 4, 6)).unwrap()
        };
        let (cond, uncond) = (values(0.0), values(1.3));
        let mix = |guidance: Guidance| guidance.mix(&cond, &uncond).unwrap();
        let plain = mix(Guidance::Rows(4.0));
        let rescaled = mix(GuidanceKind::Rescaled { token_side: 2 }.with(1.0, 4.0));
        let token = |picture: &Tensor| {
            let token = picture.narrow(2, 2, 2).unwrap().narrow(3, 4, 2).unwrap();
            token.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
        let (cond, plain, rescaled) = (token(&cond), token(&plain), token(&rescaled));
        assert!((length(&rescaled) - length(&cond)).abs() < 1e-5);
        let factor = length(&cond) / length(&plain);
        assert!(plain.iter().zip(&rescaled).all(|(plain, rescaled)| (plain * factor - rescaled).abs() < 1e-5));
    }
}
