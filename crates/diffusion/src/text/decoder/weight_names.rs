//! Under which names files have a decoder's tensors: alone, below `model.`, or as the text half of a model that also sees.

use afterimage_checkpoint::Parameters;

use super::taps::Taps;

/// What may stand before a decoder's own names; the first is that of most published files.
const PREFIXES: [&str; 5] = ["model", "", "language_model.model", "model.language_model", "language_model"];
/// Parts of models that no text goes through, and what predicts tokens.
const OTHER_PARTS: [&str; 9] = [
    "lm_head.",
    "language_model.lm_head.",
    "visual.",
    "model.visual.",
    "vision_tower.",
    "model.vision_tower.",
    "multi_modal_projector.",
    "model.multi_modal_projector.",
    "score.",
];

/// The parameters of the decoder in those of a file.
pub(super) fn decoder(parameters: &Parameters) -> Parameters {
    let below = |prefix: &str| if prefix.is_empty() { parameters.clone() } else { parameters.pp(prefix) };
    let found = PREFIXES.iter().map(|prefix| below(prefix)).find(|below| below.contains("embed_tokens.weight"));
    found.unwrap_or_else(|| below(PREFIXES[0]))
}

/// What names of tensors begin with that are not read: other parts, layers behind the last one that is read, and angles that
/// older files hold.
pub(in crate::text) fn unread(taps: &Taps, layers: usize) -> Vec<String> {
    let mut unread: Vec<String> = OTHER_PARTS.map(str::to_owned).to_vec();
    for prefix in PREFIXES {
        let name = |name: String| if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        unread.extend(taps.layers_unread().map(|layer| name(format!("layers.{layer}."))));
        unread.extend((0..layers).map(|layer| name(format!("layers.{layer}.self_attn.rotary_emb."))));
        unread.push(name("rotary_emb.".to_owned()));
        if !taps.reads_the_norm() {
            unread.push(name("norm.".to_owned()));
        }
    }
    unread
}
