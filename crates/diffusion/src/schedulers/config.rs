//! `scheduler_config.json`, whose keys each scheduler reads with its own defaults.
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

use afterimage_checkpoint::{MODEL_INDEX, component_config, lenient_json, shortened};
use serde_json::{Map, Value};

use super::kind::{Predicted, SchedulerKind};
use crate::DiffusionError;

/// Where the class stands.
pub(super) const CLASS: &str = "_class_name";

/// Most training timesteps a config may have: 100 times the usual number, and still a small table.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

/// The file, for errors.
const FILE: &str = "scheduler_config.json";

/// The keys of a `scheduler_config.json`.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    keys: Map<String, Value>,
    /// The scheduler's class in `model_index.json`, which takes precedence over that of this file.
    pub(super) class: Option<String>,
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
        let supported =
            || SchedulerKind::ALL.into_iter().filter(|kind| *kind != SchedulerKind::UniPc || self.says_flow());
        if let Some(class) = &self.class {
            let found = supported().find(|kind| kind.as_str() == class);
            let supported: Vec<_> = supported().map(SchedulerKind::as_str).collect();
            return found.ok_or_else(|| {
                component_config::unsupported(MODEL_INDEX, "scheduler", class, &supported.join(", ")).into()
            });
        }
        if !self.is_set(CLASS) {
            let problem = "there is no _class_name, and model_index.json names no scheduler either";
            return Err(DiffusionError::Scheduler(format!("{FILE}: {problem}")));
        }
        let choices: Vec<_> = supported().map(|kind| (kind.as_str(), kind)).collect();
        self.choice(CLASS, &choices, SchedulerKind::Ddim)
    }

    /// The classes that this model can be sampled with: those for what it predicts.
    ///
    /// # Errors
    /// As [`Self::kind`].
    pub fn kinds(&self) -> Result<Vec<SchedulerKind>, DiffusionError> {
        let predicted = self.predicted()?;
        Ok(SchedulerKind::ALL.into_iter().filter(|kind| kind.samples(predicted)).collect())
    }

    /// What the model predicts, as its own class says, also one that is not supported.
    pub(super) fn predicted(&self) -> Result<Predicted, DiffusionError> {
        let text = |key: &str| self.keys.get(key).and_then(Value::as_str);
        let own = match self.kind() {
            Ok(kind) => Some(kind),
            Err(error) if self.class.as_deref().or(text(CLASS)).is_none() => return Err(error),
            Err(_) => None,
        };
        Ok(match own {
            Some(SchedulerKind::Scm) => Predicted::TrigFlow,
            Some(SchedulerKind::Ddim | SchedulerKind::Ddpm) => Predicted::Noise,
            _ if self.is_of_flow_match_class() || self.says_flow() => Predicted::Flow,
            _ => Predicted::Noise,
        })
    }

    /// Its keys say that the model is one of flow matching, whatever the class.
    fn says_flow(&self) -> bool {
        self.says("prediction_type", "flow_prediction") || self.says_true("use_flow_sigmas")
    }

    /// The class is one of flow matching, also one that is not supported.
    pub(super) fn is_of_flow_match_class(&self) -> bool {
        let own = || self.keys.get(CLASS).and_then(Value::as_str);
        self.class.as_deref().or_else(own).is_some_and(|class| class.contains("FlowMatch"))
    }

    /// The configuration of a solver for a flow-matching model that comes with another class, whose levels are shifted by
    /// this factor.
    pub(super) fn for_flow_solver(&self, flow_shift: f64) -> Self {
        let mut config = self.clone();
        config.keys.remove("use_dynamic_shifting");
        config.keys.insert("use_flow_sigmas".to_owned(), true.into());
        config.keys.insert("prediction_type".to_owned(), "flow_prediction".into());
        config.keys.insert("flow_shift".to_owned(), flow_shift.into());
        config
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

    /// Whether the key holds `true`.
    pub(super) fn says_true(&self, key: &str) -> bool {
        self.keys.get(key) == Some(&Value::Bool(true))
    }

    /// Whether the key holds `false`, which stands for no number in some files.
    pub(super) fn is_off(&self, key: &str) -> bool {
        self.keys.get(key) == Some(&Value::Bool(false))
    }

    /// Whether the key is present and not `null`.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|value| !value.is_null())
    }
}

/// The error for a key whose value cannot be used.
pub(super) fn unsupported(key: &str, found: impl Display, supported: impl Display) -> DiffusionError {
    DiffusionError::SchedulerKey {
        key: key.to_owned(),
        found: shortened(&found.to_string()).into_owned(),
        supported: supported.to_string(),
    }
}
