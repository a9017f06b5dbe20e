//! Bounds of the sizes that configurations name. They are looked at before anything is made in such a size: weights have to
//! be there, but positions, latents and pictures are only asked for.

use afterimage_checkpoint::CheckpointError;
use afterimage_checkpoint::component_config::unsupported;

/// Most of anything that tensors have as a dimension: no published model comes near, and products stay numbers.
pub(crate) const MAX_DIMENSION: usize = 1 << 16;
/// Most channels of latents; published models have up to 128.
pub(crate) const MAX_LATENT_CHANNELS: usize = 512;
/// Most tokens that a tokenizer knows; published models have up to 256,384.
pub(crate) const MAX_VOCABULARY: usize = 1 << 20;

/// Refuses sizes that are no dimension of a tensor, by their keys in the file at `path`.
pub(crate) fn check_dimensions(path: &str, sizes: &[(&str, usize)]) -> Result<(), CheckpointError> {
    sizes.iter().try_for_each(|(key, size)| check_size(path, key, *size, MAX_DIMENSION))
}

/// Refuses a size of 0 and one beyond `most`.
pub(crate) fn check_size(path: &str, key: &str, size: usize, most: usize) -> Result<(), CheckpointError> {
    if (1..=most).contains(&size) {
        return Ok(());
    }
    Err(unsupported(path, key, &size.to_string(), &format!("a positive number up to {most}")))
}

/// Refuses channels of a head that axes turn, `axes_dims_rope` of the file at `path`, unless each axis has pairs and all
/// together have the head.
pub(crate) fn check_axes(path: &str, axes: &[usize], head_size: usize) -> Result<(), CheckpointError> {
    let sum = axes.iter().fold(0usize, |sum, axis| sum.saturating_add(*axis));
    if sum == head_size && axes.iter().all(|axis| axis.is_multiple_of(2)) {
        return Ok(());
    }
    let right = format!("even numbers that add up to attention_head_dim {head_size}");
    Err(unsupported(path, "axes_dims_rope", &format!("{axes:?}"), &right))
}

/// Refuses factors and periods that are not finite numbers above 0, by their keys in the file at `path`.
pub(crate) fn check_positive(path: &str, values: &[(&str, f64)]) -> Result<(), CheckpointError> {
    match values.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
        Some((key, value)) => Err(unsupported(path, key, &value.to_string(), "a positive number")),
        None => Ok(()),
    }
}
