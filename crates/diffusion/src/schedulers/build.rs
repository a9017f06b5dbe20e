//! Building a scheduler from a model's configuration.

use std::borrow::Cow;

use super::config::{CLASS, SchedulerConfig};
use super::ddim::Ddim;
use super::ddpm::Ddpm;
use super::dpm_solver_multistep::DpmSolverMultistep;
use super::flow_match::{FlowMatchEuler, FlowMatchHeun, flow_shift};
use super::kind::SchedulerKind;
use super::schedule::Schedule;
use super::scheduler::Scheduler;
use super::scm::Scm;
use super::unipc::UniPc;
use crate::DiffusionError;

impl SchedulerConfig {
    /// Builds a fresh scheduler of class `kind` for one image.
    ///
    /// # Errors
    ///
    /// [`DiffusionError::SchedulerKey`] when the config has a value the class does not support,
    /// [`DiffusionError::Scheduler`] when it belongs to a model that
    /// predicts something else, and [`DiffusionError::InferenceSteps`] when it cannot do this number of steps.
    pub fn build(&self, kind: SchedulerKind, schedule: &Schedule) -> Result<Box<dyn Scheduler>, DiffusionError> {
        self.check_kind(kind, schedule)?;
        let (steps, train_timesteps) = (schedule.steps, self.num_train_timesteps()?);
        if steps == 0 || steps > train_timesteps {
            return Err(DiffusionError::InferenceSteps(format!(
                "num_inference_steps is {steps}; the model's noise schedule has \
                 {train_timesteps} timesteps, so 1 to {train_timesteps} steps are possible"
            )));
        }
        Ok(match kind {
            SchedulerKind::Ddim => Box::new(Ddim::new(self, steps)?),
            SchedulerKind::DpmSolverMultistep => {
                Box::new(DpmSolverMultistep::new(self.for_solver(schedule)?.as_ref(), steps)?)
            }
            SchedulerKind::Ddpm => Box::new(Ddpm::new(self, steps)?),
            SchedulerKind::FlowMatchEuler => Box::new(FlowMatchEuler::new(self, schedule)?),
            SchedulerKind::FlowMatchHeun => Box::new(FlowMatchHeun::new(self, schedule)?),
            SchedulerKind::Scm => Box::new(Scm::new(self, steps)?),
            SchedulerKind::UniPc => Box::new(UniPc::new(self.for_solver(schedule)?.as_ref(), schedule)?),
        })
    }

    /// What a solver is built from: a flow-matching model whose own class is none lacks its keys.
    fn for_solver(&self, schedule: &Schedule) -> Result<Cow<'_, Self>, DiffusionError> {
        Ok(match self.is_of_flow_match_class() {
            true => Cow::Owned(self.for_flow_solver(flow_shift(self, schedule)?)),
            false => Cow::Borrowed(self),
        })
    }

    /// A model that predicts noise cannot be sampled as one that predicts a velocity, nor the other way
    /// round. A config without a class goes with any.
    fn check_kind(&self, kind: SchedulerKind, schedule: &Schedule) -> Result<(), DiffusionError> {
        if self.class.is_none() && !self.is_set(CLASS) {
            return Ok(());
        }
        let possible = self.kinds()?;
        if possible.contains(&kind) {
            return Ok(());
        }
        let takes = |kind: &SchedulerKind| kind.takes(schedule.sigmas);
        let names: Vec<_> = possible.into_iter().filter(takes).map(SchedulerKind::as_str).collect();
        Err(DiffusionError::Scheduler(format!(
            "{kind} is for models that predict something else; possible with this model: {}",
            names.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> SchedulerConfig {
        SchedulerConfig::from_json(text).unwrap()
    }

    #[test]
    fn knows_its_own_class() {
        let config_with = |name: &str| config(&format!(r#"{{"_class_name": "{name}"}}"#));
        assert_eq!(config_with("DDIMScheduler").kind().unwrap(), SchedulerKind::Ddim);
        let error = config_with("PNDMScheduler").kind().unwrap_err().to_string();
        assert!(error.contains("_class_name is \"PNDMScheduler\""), "{error}");
        for text in ["{}", r#"{"_class_name": null}"#] {
            let error = config(text).kind().unwrap_err().to_string();
            assert!(error.starts_with("scheduler_config.json: there is no _class_name"), "{error}");
        }
    }

    #[test]
    fn the_class_of_the_index_goes_before_its_own() {
        for text in ["{}", r#"{"_class_name": null}"#, r#"{"_class_name": "PNDMScheduler"}"#] {
            let config = config(text).of_class(Some("DDIMScheduler"));
            assert_eq!(config.kind().unwrap(), SchedulerKind::Ddim);
            assert!(config.build(SchedulerKind::FlowMatchEuler, &Schedule::new(4)).is_err());
        }
        let other = config(r#"{"_class_name": "DDIMScheduler"}"#).of_class(Some("PNDMScheduler"));
        let error = other.kind().unwrap_err().to_string();
        assert!(
            error.starts_with("model_index.json: `scheduler` is PNDMScheduler; supported: DDIMScheduler, "),
            "{error}"
        );
        assert_eq!(config(r#"{"_class_name": "DDIMScheduler"}"#).of_class(None).kind().unwrap(), SchedulerKind::Ddim);
    }

    #[test]
    fn null_is_off_where_diffusers_asks_for_truth_and_absent_where_it_is_not_asked() {
        let (ddim, dpm) = (SchedulerKind::Ddim, SchedulerKind::DpmSolverMultistep);
        let euler = SchedulerKind::FlowMatchEuler;
        let config = |keys: &str| config(&format!("{{{keys}}}"));
        for (kind, keys) in [
            (ddim, r#""thresholding": null, "rescale_betas_zero_snr": null, "trained_betas": null"#),
            (ddim, r#""clip_sample": null, "clip_sample_range": null"#),
            (ddim, r#""timestep_spacing": "trailing", "steps_offset": null"#),
            (ddim, r#""beta_schedule": "squaredcos_cap_v2", "beta_start": null, "beta_end": null"#),
            (
                ddim,
                r#""num_train_timesteps": 10, "trained_betas": [0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1], "beta_schedule": null"#,
            ),
            (dpm, r#""steps_offset": null, "variance_type": null, "use_beta_sigmas": null, "euler_at_final": null"#),
            (
                dpm,
                r#""num_train_timesteps": 10, "trained_betas": [0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1], "beta_schedule": null"#,
            ),
            (euler, r#""shift_terminal": null, "use_dynamic_shifting": null, "stochastic_sampling": null"#),
            (euler, r#""shift_terminal": false"#),
            (euler, r#""use_dynamic_shifting": true, "shift": null"#),
        ] {
            config(keys).build(kind, &Schedule::new(5)).map(|_| ()).unwrap_or_else(|error| panic!("{keys}: {error}"));
        }
        for (kind, key) in [
            (ddim, "num_train_timesteps"),
            (ddim, "beta_start"),
            (ddim, "beta_schedule"),
            (ddim, "prediction_type"),
            (ddim, "timestep_spacing"),
            (ddim, "steps_offset"),
            (ddim, "clip_sample_range"),
            (dpm, "solver_order"),
            (dpm, "algorithm_type"),
            (dpm, "solver_type"),
            (dpm, "final_sigmas_type"),
            (dpm, "lambda_min_clipped"),
            (euler, "shift"),
            (SchedulerKind::FlowMatchHeun, "shift"),
        ] {
            let error = config(&format!("\"{key}\": null")).build(kind, &Schedule::new(5)).err().unwrap().to_string();
            assert!(error.starts_with(&format!("scheduler_config.json: {key} is null; supported: ")), "{key}: {error}");
        }
    }

    #[test]
    fn a_class_that_is_not_supported_still_says_what_the_model_predicts() {
        let kinds = |text: &str| config(text).kinds().unwrap();
        let noise = [SchedulerKind::Ddim, SchedulerKind::DpmSolverMultistep, SchedulerKind::Ddpm];
        let flow = [
            SchedulerKind::DpmSolverMultistep,
            SchedulerKind::FlowMatchEuler,
            SchedulerKind::FlowMatchHeun,
            SchedulerKind::UniPc,
        ];
        assert_eq!(kinds(r#"{"_class_name": "PNDMScheduler"}"#), noise);
        assert_eq!(kinds(r#"{"_class_name": "FlowMatchLCMScheduler"}"#), flow);
        assert_eq!(kinds(r#"{"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true}"#), flow);
        assert_eq!(kinds(r#"{"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": false}"#), noise);
        let pndm = config(r#"{"_class_name": "PNDMScheduler", "skip_prk_steps": true, "set_alpha_to_one": false}"#);
        assert!(pndm.build(SchedulerKind::Ddim, &Schedule::new(10)).is_ok());
        let error = pndm.build(SchedulerKind::FlowMatchEuler, &Schedule::new(10)).err().unwrap().to_string();
        assert!(error.contains("possible with this model: DDIMScheduler, "), "{error}");
    }

    #[test]
    fn values_left_to_defaults_do_not_carry_over() {
        let config = config(r#"{"steps_offset": 7, "beta_end": 0.5, "_use_default_values": ["steps_offset"]}"#);
        assert_eq!(config.whole_number("steps_offset", 0).unwrap(), 0);
        assert_eq!(config.number("beta_end", 0.02).unwrap(), 0.5);
    }

    #[test]
    fn wrong_text_is_an_error() {
        for text in ["", "[]", "{\"a\": }"] {
            let error = SchedulerConfig::from_json(text).unwrap_err().to_string();
            assert!(error.starts_with("scheduler_config.json is not "), "{error}");
        }
    }

    #[test]
    fn impossible_numbers_of_steps_are_refused() {
        let config = config(r#"{"num_train_timesteps": 20}"#);
        for kind in SchedulerKind::ALL {
            for steps in [0, 21, usize::MAX] {
                let error = config.build(kind, &Schedule::new(steps)).err().unwrap();
                assert!(matches!(error, DiffusionError::InferenceSteps(_)), "{error}");
                assert!(error.to_string().contains(&steps.to_string()), "{error}");
            }
            assert_eq!(config.build(kind, &Schedule::new(10)).unwrap().timesteps().len(), kind.forwards(10));
        }
    }

    #[test]
    fn wrong_types_and_values_name_the_key() {
        let wrong = [
            ("num_train_timesteps", "1"),
            ("num_train_timesteps", "1000.5"),
            ("num_train_timesteps", "10000000"),
            ("beta_start", "\"0.1\""),
            ("beta_end", "1.5"),
            ("beta_end", "NaN"),
            ("beta_schedule", "\"sigmoid\""),
            ("beta_schedule", "7"),
            ("trained_betas", "[0.1, 0.2]"),
            ("trained_betas", "\"linear\""),
            ("prediction_type", "\"flow_prediction\""),
            ("timestep_spacing", "\"loose\""),
            ("rescale_betas_zero_snr", "\"yes\""),
            ("thresholding", "true"),
            ("steps_offset", "-1"),
        ];
        for kind in [SchedulerKind::Ddim, SchedulerKind::DpmSolverMultistep, SchedulerKind::Ddpm] {
            for (key, value) in wrong {
                let error = config(&format!("{{{key:?}: {value}}}")).build(kind, &Schedule::new(10)).err().unwrap();
                assert!(
                    matches!(error, DiffusionError::Scheduler(_) | DiffusionError::SchedulerKey { .. }),
                    "{error:?}"
                );
                assert!(error.to_string().contains(key), "{key}: {error}");
            }
        }
    }

    /// A step is arithmetic on numbers, wherever they stand: latents of videos have frames.
    #[test]
    fn latents_may_have_any_rank() {
        let flow = config(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}"#);
        let diffusion =
            config(r#"{"_class_name": "DDIMScheduler", "clip_sample": false, "num_train_timesteps": 1000}"#);
        let consistency = config(r#"{"_class_name": "SCMScheduler"}"#);
        for kind in SchedulerKind::ALL {
            let run = |shape: &[usize]| {
                let configs = [&flow, &diffusion, &consistency];
                let config = configs.into_iter().find(|config| config.kinds().unwrap().contains(&kind)).unwrap();
                let mut scheduler = config.build(kind, &Schedule::new(4)).unwrap();
                let sample = candle_core::Tensor::arange(0f32, 24.0, &candle_core::Device::Cpu);
                let mut sample = sample.unwrap().reshape(shape).unwrap();
                for _ in 0..kind.forwards(4) {
                    if scheduler.takes_noise() {
                        scheduler.take_noise(sample.ones_like().unwrap());
                    }
                    sample = scheduler.step(&sample.affine(0.1, 0.2).unwrap(), &sample).unwrap();
                }
                assert_eq!(sample.dims(), shape, "{kind}");
                sample.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            assert_eq!(run(&[1, 4, 2, 3]), run(&[1, 2, 2, 2, 3]), "{kind}");
        }
    }
}
