//! What a loaded model takes.

use afterimage_checkpoint::LoadedWeights;

use crate::request::Size;

/// What the names of text encoders' components begin with.
const TEXT_ENCODER: &str = "text_encoder";

/// Bytes that a model takes on its device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Of weights that stay, by component.
    pub(crate) weights: Vec<(String, u64)>,
    /// Of weights that come for a prompt and go.
    pub(crate) weights_on_demand: u64,
    /// Of the largest matrix that is widened as a whole, for the time of its product.
    pub(crate) widened: u64,
    /// What each size takes, the default first.
    pub(crate) buckets: Vec<BucketFootprint>,
}

/// Bytes that work of one size takes at the worst moment, beside weights and what images keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BucketFootprint {
    pub(crate) size: Size,
    /// For every row of a forward.
    pub(crate) row: u64,
    /// While a picture is decoded.
    pub(crate) decode: u64,
}

impl Footprint {
    /// Of weights that were counted while they were loaded. Text encoders may be on another device.
    pub(crate) fn of_weights(loaded: &LoadedWeights, text_encoders_are_here: bool) -> Self {
        let mut footprint = Self::default();
        for (component, bytes) in loaded.by_component() {
            if component.starts_with(TEXT_ENCODER) && !text_encoders_are_here {
                continue;
            }
            footprint.weights_on_demand += bytes.on_demand;
            footprint.widened = footprint.widened.max(bytes.widened);
            if bytes.read > 0 {
                footprint.weights.push((component, bytes.read));
            }
        }
        footprint
    }

    /// Of all weights that stay.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.weights.iter().map(|(_, bytes)| bytes).sum()
    }
}
