//! `scheduler_config.json`, and building a scheduler from it.
//!
//! Follows diffusers 0.42.1, `ConfigMixin.from_config` (lines 221-311) and `extract_init_dict` (488-581):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/configuration_utils.py#L221>
//!
//! A request may ask for another class than the file names. As in diffusers' `from_config`, keys the
//! two classes share carry over and all others take the defaults of the class being built; so the
//! config keeps the keys as they were written, and each scheduler reads them with its own defaults.
//! Keys that belong to other classes only are ignored, as in diffusers. A key that counts must have a
//! value that is supported: nothing is rounded to the nearest thing that works.

use std::fmt::Display;

use afterimage_checkpoint::{MODEL_INDEX, component_config, lenient_json};
use serde_json::{Map, Value};

use super::ddim::Ddim;
use super::dpm_solver_multistep::DpmSolverMultistep;
use super::flow_match::{FlowMatchEuler, FlowMatchHeun};
use super::{Schedule, Scheduler, SchedulerKind};
use crate::DiffusionError;

/// Where the class stands.
const CLASS: &str = "_class_name";

/// Most training timesteps a config may have: 100 times the usual number, and still a small table.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

/// The file, for errors.
const FILE: &str = "scheduler_config.json";

/// The keys of a `scheduler_config.json`.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    keys: Map<String, Value>,
    /// The scheduler's class in `model_index.json`, which takes precedence over that of this file.
    class: Option<String>,
}

impl SchedulerConfig {
    /// Reads the text of a `scheduler_config.json`, which may hold bare `-Infinity` and the like.
    ///
    /// # Errors
    ///
    /// [`DiffusionError::Scheduler`] when the text is not a JSON object. Values are looked at by
    /// [`build`](Self::build), since which keys count depends on the class.
    pub fn from_json(text: &str) -> Result<Self, DiffusionError> {
        let mut keys = component_config::object(FILE, text)?;
        // diffusers lists here what its author left to the class's defaults: such a value does not count.
        if let Some(Value::Array(unset)) = keys.remove("_use_default_values") {
            unset.iter().filter_map(Value::as_str).for_each(|key| {
                keys.remove(key);
            });
        }
        Ok(Self { keys, class: None })
    }

    /// The same for the class that `model_index.json` names, if it does: whatever `_class_name` says,
    /// diffusers builds that one.
    pub fn of_class(self, class: Option<&str>) -> Self {
        Self { class: class.map(str::to_owned), ..self }
    }

    /// The scheduler that `model_index.json` names, or else the file itself in `_class_name`.
    ///
    /// # Errors
    ///
    /// [`DiffusionError::Scheduler`] when neither names one, or one that is not supported.
    pub fn kind(&self) -> Result<SchedulerKind, DiffusionError> {
        if let Some(class) = &self.class {
            let found = SchedulerKind::ALL.into_iter().find(|kind| kind.as_str() == class);
            let supported = SchedulerKind::ALL.map(SchedulerKind::as_str).join(", ");
            return found
                .ok_or_else(|| component_config::unsupported(MODEL_INDEX, "scheduler", class, &supported).into());
        }
        if !self.is_set(CLASS) {
            let problem = "there is no _class_name, and model_index.json names no scheduler either";
            return Err(DiffusionError::Scheduler(format!("{FILE}: {problem}")));
        }
        let choices = SchedulerKind::ALL.map(|kind| (kind.as_str(), kind));
        self.choice(CLASS, &choices, SchedulerKind::Ddim)
    }

    /// The classes that this model can be sampled with: those for what it predicts.
    ///
    /// # Errors
    /// As [`Self::kind`].
    pub fn kinds(&self) -> Result<Vec<SchedulerKind>, DiffusionError> {
        let is_flow_match = self.is_flow_match()?;
        Ok(SchedulerKind::ALL.into_iter().filter(|kind| kind.is_flow_match() == is_flow_match).collect())
    }

    /// Whether the model predicts the velocity from picture to noise, as its own class says, also one that is not
    /// supported.
    fn is_flow_match(&self) -> Result<bool, DiffusionError> {
        let error = match self.kind() {
            Ok(kind) => return Ok(kind.is_flow_match()),
            Err(error) => error,
        };
        let text = |key: &str| self.keys.get(key).and_then(Value::as_str);
        let class = self.class.as_deref().or(text(CLASS)).ok_or(error)?;
        let is_on = |key: &str| self.keys.get(key) == Some(&Value::Bool(true));
        let predicts_flow = text("prediction_type") == Some("flow_prediction");
        Ok(class.contains("FlowMatch") || predicts_flow || is_on("use_flow_sigmas"))
    }

    /// Builds a fresh scheduler of class `kind` for one image.
    ///
    /// # Errors
    ///
    /// [`DiffusionError::Scheduler`] when the config has a value the class does not support or belongs to a model that
    /// predicts something else, and [`DiffusionError::InferenceSteps`] when it cannot do this number of steps.
    pub fn build(&self, kind: SchedulerKind, schedule: &Schedule) -> Result<Box<dyn Scheduler>, DiffusionError> {
        self.check_kind(kind)?;
        let (steps, train_timesteps) = (schedule.steps, self.num_train_timesteps()?);
        if steps == 0 || steps > train_timesteps {
            return Err(DiffusionError::InferenceSteps(format!(
                "num_inference_steps is {steps}; the model's noise schedule has \
                 {train_timesteps} timesteps, so 1 to {train_timesteps} steps are possible"
            )));
        }
        Ok(match kind {
            SchedulerKind::Ddim => Box::new(Ddim::new(self, steps)?),
            SchedulerKind::DpmSolverMultistep => Box::new(DpmSolverMultistep::new(self, steps)?),
            SchedulerKind::FlowMatchEuler => Box::new(FlowMatchEuler::new(self, schedule)?),
            SchedulerKind::FlowMatchHeun => Box::new(FlowMatchHeun::new(self, schedule)?),
        })
    }

    /// A model that predicts noise cannot be sampled as one that predicts a velocity, nor the other way
    /// round. A config without a class goes with any.
    fn check_kind(&self, kind: SchedulerKind) -> Result<(), DiffusionError> {
        if self.class.is_none() && !self.is_set(CLASS) {
            return Ok(());
        }
        let possible = self.kinds()?;
        if possible.contains(&kind) {
            return Ok(());
        }
        let names: Vec<_> = possible.into_iter().map(SchedulerKind::as_str).collect();
        Err(DiffusionError::Scheduler(format!(
            "{kind} is for models that predict something else; possible with this model: {}",
            names.join(", ")
        )))
    }

    pub(super) fn num_train_timesteps(&self) -> Result<usize, DiffusionError> {
        match self.whole_number("num_train_timesteps", 1000)? {
            steps @ 2..=MAX_TRAIN_TIMESTEPS => Ok(steps),
            other => Err(unsupported(
                "num_train_timesteps",
                other,
                format_args!("a whole number from 2 to {MAX_TRAIN_TIMESTEPS}"),
            )),
        }
    }

    /// A number, possibly infinite.
    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64, DiffusionError> {
        let Some(value) = self.keys.get(key) else {
            return Ok(default);
        };
        lenient_json::number(value).filter(|number| !number.is_nan()).ok_or_else(|| unsupported(key, value, "a number"))
    }

    /// A number in the open interval from 0 to `below`.
    pub(super) fn positive(&self, key: &str, default: f64, below: f64) -> Result<f64, DiffusionError> {
        let number = self.number(key, default)?;
        if number > 0.0 && number < below {
            return Ok(number);
        }
        Err(unsupported(key, number, format_args!("a number greater than 0 and less than {below}")))
    }

    pub(super) fn whole_number(&self, key: &str, default: usize) -> Result<usize, DiffusionError> {
        let Some(value) = self.keys.get(key) else {
            return Ok(default);
        };
        value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| unsupported(key, value, "a whole number"))
    }

    /// A switch; `null` is off, as it is to Python.
    pub(super) fn boolean(&self, key: &str, default: bool) -> Result<bool, DiffusionError> {
        let Some(value) = self.keys.get(key) else {
            return Ok(default);
        };
        component_config::is_true(value).ok_or_else(|| unsupported(key, value, "true or false"))
    }

    /// Fails if a switch is on whose effect is not implemented.
    pub(super) fn must_be_off(&self, keys: &[&str]) -> Result<(), DiffusionError> {
        for key in keys {
            if self.boolean(key, false)? {
                return Err(unsupported(key, true, "false"));
            }
        }
        Ok(())
    }

    /// One of a few words, as the value that stands beside it; `null` is no word.
    pub(super) fn choice<T: Clone>(&self, key: &str, choices: &[(&str, T)], default: T) -> Result<T, DiffusionError> {
        let Some(value) = self.keys.get(key) else {
            return Ok(default);
        };
        let found = choices.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, choice)| choice.clone()).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            unsupported(key, value, words.join(", "))
        })
    }

    /// A list of numbers; `null` counts as absent.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, DiffusionError> {
        let value = match self.keys.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|values| values.iter().map(lenient_json::number).collect());
        // The list may be long, so the message does not repeat it.
        numbers.map(Some).ok_or_else(|| unsupported(key, "something else", "null or a list of numbers"))
    }

    /// Whether the key holds this word.
    pub(super) fn says(&self, key: &str, word: &str) -> bool {
        self.keys.get(key).and_then(Value::as_str) == Some(word)
    }

    /// Whether the key is present and not `null`.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|value| !value.is_null())
    }
}

/// The error for a key whose value cannot be used.
pub(super) fn unsupported(key: &str, found: impl Display, supported: impl Display) -> DiffusionError {
    DiffusionError::Scheduler(format!("{FILE}: {key} is {found}; supported: {supported}"))
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
        let noise = [SchedulerKind::Ddim, SchedulerKind::DpmSolverMultistep];
        let flow = [SchedulerKind::FlowMatchEuler, SchedulerKind::FlowMatchHeun];
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
        for kind in [SchedulerKind::Ddim, SchedulerKind::DpmSolverMultistep] {
            for (key, value) in wrong {
                let error = config(&format!("{{{key:?}: {value}}}")).build(kind, &Schedule::new(10)).err().unwrap();
                assert!(matches!(error, DiffusionError::Scheduler(_)), "{error:?}");
                assert!(error.to_string().contains(key), "{key}: {error}");
            }
        }
    }
}
