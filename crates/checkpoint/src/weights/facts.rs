//! What a GGUF file says of its model, compared with the configuration beside it.

use super::Weights;
use crate::CheckpointError;

/// The file has single precision.
const ROUNDING: f64 = 1e-6;

/// A number in a configuration, and the entry of a GGUF file that should say the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fact {
    /// Without the kind of model that it begins with: `block_count`.
    pub entry: &'static str,
    /// In `config.json`.
    pub key: &'static str,
    /// What stands there.
    pub value: f64,
}

impl Weights {
    /// Compares facts that the file states with a configuration, which is at `path`. Files of other formats state none.
    ///
    /// # Errors
    /// One of them differs.
    pub fn check_facts(&self, path: &str, facts: &[Fact]) -> Result<(), CheckpointError> {
        for Fact { entry, key, value } in facts {
            match self.facts.number(entry) {
                Some(found) if (found - value).abs() > ROUNDING * value.abs().max(found.abs()) => {
                    let entry = self.facts.key(entry);
                    return Err(CheckpointError::weights(
                        &self.place,
                        format!(
                            "`{entry}` is {found}, and `{key}` in {path} is {value}: the file is that of another model"
                        ),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
