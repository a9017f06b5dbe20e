//! A prefix that all tensors of a file share.
//!
//! Programs save a model inside of another: `module.` (data parallel), `_orig_mod.` (compiled),
//! `model.diffusion_model.` (a checkpoint), `transformer.` (a pipeline). Which of the names' first parts are such a
//! wrapper and which the model's own is known only once the model asks for a tensor.

/// Parts of names that wrappers of modules leave also in the middle.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Everything that all names begin with, up to a dot each, the shortest first; nothing where there are fewer than
/// two names.
pub(crate) fn shared<'a>(mut names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (Some(first), Some(second)) = (names.next(), names.next()) else { return Vec::new() };
    let common = |length: usize, name: &str| {
        first.bytes().zip(name.bytes()).take(length).take_while(|(left, right)| left == right).count()
    };
    let length = names.fold(common(first.len(), second), common);
    first
        .match_indices('.')
        .map(|(dot, _)| dot + 1)
        .filter(|end| *end <= length)
        .map(|end| first[..end].to_owned())
        .collect()
}

/// A name without what wrappers of its modules left.
pub(crate) fn unwrapped(name: String) -> String {
    if WRAPPERS.iter().all(|wrapper| !name.contains(wrapper)) {
        return name;
    }
    name.split('.').filter(|part| !WRAPPERS.contains(part)).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_prefixes_end_at_dots() {
        let of = |names: &[&str]| shared(names.iter().copied());
        assert_eq!(of(&["module.net.a.weight", "module.net.b.weight"]), ["module.", "module.net."]);
        assert_eq!(of(&["module.conv_in.weight", "module.conv_out.weight"]), ["module."]);
        assert_eq!(of(&["a.weight", "a.weight_scale"]), ["a."]);
        assert!(of(&["a.weight", "b.weight"]).is_empty());
        assert!(of(&["a.b.weight"]).is_empty() && of(&[]).is_empty());
    }

    #[test]
    fn wrappers_inside_of_names_are_dropped() {
        let found = unwrapped("_fsdp_wrapped_module.blocks.0._orig_mod.attn.weight".to_owned());
        assert_eq!(found, "blocks.0.attn.weight");
        assert_eq!(unwrapped("blocks.0.attn.weight".to_owned()), "blocks.0.attn.weight");
    }
}
