//! Lists of tensors that are to be written with random values.

use std::collections::BTreeMap;

use super::values::{Init, state};
use crate::formats::original;

/// How a tensor was asked for.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) shape: Vec<usize>,
    /// As the weight of a linear layer, which may be quantised.
    pub(super) is_matrix: bool,
}

/// Tensors of a component by name and shape. Values are drawn when they are written.
#[derive(Debug, Clone, Default)]
pub struct RandomTensors(Vec<TensorSpec>);

#[derive(Debug, Clone)]
pub(super) struct TensorSpec {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// The weight of a linear layer, which may be quantised.
    pub(super) is_matrix: bool,
    pub(super) init: Init,
}

impl TensorSpec {
    fn new(name: String, shape: Vec<usize>, is_matrix: bool) -> Self {
        let init = Init::of(&name, &shape);
        Self { name, shape, is_matrix, init }
    }

    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where its random numbers begin.
    pub(super) fn state(&self, seed: u64) -> u64 {
        state(&self.name, seed)
    }

    pub(super) fn values(&self, seed: u64) -> impl Fn(usize) -> f32 + use<> {
        self.init.values(self.state(seed))
    }
}

impl RandomTensors {
    pub(super) fn recorded(recorded: &BTreeMap<String, Recorded>) -> Self {
        let spec = |(name, recorded): (&String, &Recorded)| {
            TensorSpec::new(name.clone(), recorded.shape.clone(), recorded.is_matrix)
        };
        Self(recorded.iter().map(spec).collect())
    }

    /// Adds tensors that published files have and no model asks for.
    pub fn extend(&mut self, tensors: impl IntoIterator<Item = (String, Vec<usize>)>) {
        self.0.extend(tensors.into_iter().map(|(name, shape)| TensorSpec::new(name, shape, false)));
    }

    /// Under the names of the makers of this class of diffusers, who keep some of its matrices in one. Tensors of
    /// other classes keep their names.
    #[must_use]
    pub fn with_original_names(&self, class: &str) -> Self {
        let mut joined = BTreeMap::<String, Recorded>::new();
        for TensorSpec { name, shape, is_matrix, .. } in &self.0 {
            let original = original::original_name(class, name, shape.len()).unwrap_or_else(|| name.clone());
            let rows = shape.first().copied().unwrap_or(1);
            joined
                .entry(original)
                .and_modify(|whole| whole.shape[0] += rows)
                .or_insert_with(|| Recorded { shape: shape.clone(), is_matrix: *is_matrix });
        }
        Self::recorded(&joined)
    }

    /// Parameters of the component.
    pub fn elements(&self) -> usize {
        self.0.iter().map(TensorSpec::elements).sum()
    }

    pub(super) fn specs(&self) -> &[TensorSpec] {
        &self.0
    }
}
