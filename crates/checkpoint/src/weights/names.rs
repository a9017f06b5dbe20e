//! Names of tensors that have changed since they were stored.

use crate::formats::prefix;

/// The name that today's diffusers gives a tensor, without what wrappers of modules left in it.
///
/// VAEs saved before diffusers 0.15 (the published DiT-XL ones among them) call the projections of
/// their attention `query`, `key`, `value` and `proj_attn`; diffusers renames them while loading.
pub(super) fn current_name(name: String) -> String {
    const RENAMED: [(&str, &str); 4] =
        [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];
    let name = prefix::unwrapped(name);
    let parts: Vec<&str> = name.split('.').collect();
    let [.., "attentions", _, projection, parameter] = parts.as_slice() else {
        return name;
    };
    match RENAMED.iter().find(|(old, _)| old == projection) {
        Some((_, new)) => {
            let kept = name.len() - projection.len() - 1 - parameter.len();
            format!("{}{new}.{parameter}", &name[..kept])
        }
        None => name,
    }
}
