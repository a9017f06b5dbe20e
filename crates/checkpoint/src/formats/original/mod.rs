//! Checkpoints with the names that the makers of a model gave its tensors.
//!
//! Black Forest Labs, Stability, ComfyUI and most GGUF files store a transformer under these names,
//! diffusers under its own. A table per family says which rows of a stored tensor are which tensor of
//! diffusers: originals keep queries, keys and values in one matrix, and have shift and scale of the
//! last modulation the other way round. Nothing is copied or computed: an [`Entry`] is rows of what is
//! stored, quantised or not.

mod flux;
mod flux2;
mod sana;
mod sd3;
mod vae;
mod z_image;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::formats::{lora, prefix};
use crate::shown::{check_names, shortened};
use crate::stored::entry::Entry;
use crate::stored::tensor::StoredTensor;

pub(crate) use vae::entries as vae_entries;

/// Names of the transformer in checkpoints that hold more than a transformer.
const PREFIX: &str = "model.diffusion_model.";
/// Last parts of names; a norm's weight is its scale in some originals.
const PARAMETERS: [(&str, &str); 3] = [("weight", "weight"), ("bias", "bias"), ("scale", "weight")];
/// How many names an error lists.
const NAMES_LISTED: usize = 3;

/// The names of one family.
struct Names {
    family: &'static str,
    /// diffusers' class of the transformer.
    class: &'static str,
    /// What the names of its blocks start with.
    sign: &'static str,
    /// The last part of the name of what a norm multiplies with.
    norm_weight: &'static str,
    /// `*` stands for the index of a block; without the last part of the name.
    rules: &'static [(&'static str, Becomes)],
}

/// FLUX.2 has the signs of FLUX, too.
const FAMILIES: [Names; 5] = [flux2::NAMES, flux::NAMES, sd3::NAMES, z_image::NAMES, sana::NAMES];

/// Models that are often met in single files and not served, by a name in them.
const OTHERS: [(&str, &str); 5] = [
    ("input_blocks.0.0.weight", "the UNet of Stable Diffusion 1, 2 or XL"),
    ("blocks.0.cross_attn.q_linear.weight", "a PixArt transformer under its original names"),
    ("decoder.mid.block_1.norm1.weight", "a VAE"),
    ("enc.blk.0.attn_q.weight", "a text encoder"),
    ("token_embd.weight", "a text encoder"),
];

/// Parts of diffusers' names of transformers, of which HunyuanDiT's alone is no `transformer_blocks.`.
const DIFFUSERS_BLOCKS: [&str; 2] = ["transformer_blocks.", "blocks.0.attn1."];

/// A tensor of diffusers and the rows of a stored one that make it.
type Part = (&'static str, Vec<Range<usize>>);

/// What diffusers makes of a stored tensor.
enum Becomes {
    /// Not read.
    Nothing,
    One(&'static str),
    /// Its rows in equal parts.
    Parts(&'static [&'static str]),
    /// As many rows as it has columns each for all but the last, which gets what is left.
    SquaresAndRest(&'static [&'static str]),
    /// The second half of its rows, then the first.
    Swapped(&'static str),
    /// As [`Self::Swapped`] where it has twice as many rows as columns, else as it is.
    SwappedIfTwo(&'static str),
}

/// The tensors of a transformer under diffusers' names. `class` is what its configuration says it is,
/// `architecture` what the file says.
///
/// # Errors
/// What the file holds instead.
pub(crate) fn entries(
    tensors: Vec<(String, StoredTensor)>,
    class: &str,
    architecture: Option<&str>,
) -> Result<Vec<(String, Entry)>, String> {
    check_names(tensors.iter().map(|(name, _)| name.as_str()))?;
    if let Some(sign) = lora::sign(tensors.iter().map(|(name, _)| name.as_str())) {
        return Err(format!("it holds `{sign}` and so on, {}", lora::ADVICE));
    }
    let tensors = without_prefix(tensors);
    let Some(names) = FAMILIES.iter().find(|names| tensors.keys().any(|name| name.starts_with(names.sign))) else {
        if tensors.keys().any(|name| DIFFUSERS_BLOCKS.iter().any(|blocks| name.contains(blocks))) {
            return Ok(tensors.into_iter().map(|(name, tensor)| (name, Entry::whole(tensor))).collect());
        }
        return Err(format!("it holds {}, but config.json describes a {class}", describe(&tensors, architecture)));
    };
    if names.class != class {
        return Err(format!(
            "it holds a {} transformer (`{}..`), but config.json describes a {class}",
            names.family, names.sign
        ));
    }
    let mut entries = Vec::new();
    for (name, tensor) in &tensors {
        let width = || Some(tensors.get(&format!("{}.weight", split(name).0))?.shape.iter().skip(1).product());
        entries.extend(names.entries(name, tensor, width)?);
    }
    Ok(entries)
}

/// What the makers of this class call the tensor of `rank` dimensions that diffusers calls `name`: of several that are one
/// with them, the same for each.
pub(crate) fn original_name(class: &str, name: &str, rank: usize) -> Option<String> {
    let names = FAMILIES.iter().find(|names| names.class == class)?;
    let (stem, parameter) = split(name);
    let is_norm_weight = parameter == Some("weight") && rank == 1;
    names.rules.iter().find_map(|(pattern, becomes)| {
        let index = becomes.names().iter().find_map(|target| block_index(target, stem))?;
        let original = pattern.replace('*', index);
        let parameter = if is_norm_weight { Some(names.norm_weight) } else { parameter };
        Some(parameter.map_or(original.clone(), |parameter| format!("{original}.{parameter}")))
    })
}

/// Of a checkpoint only the transformer, and of names that all begin with something that no family knows, the rest.
fn without_prefix(tensors: Vec<(String, StoredTensor)>) -> BTreeMap<String, StoredTensor> {
    let tensors: Vec<_> = tensors.into_iter().map(|(name, tensor)| (prefix::unwrapped(name), tensor)).collect();
    let names = || tensors.iter().map(|(name, _)| name.as_str());
    let has_sign = |prefix: &String| {
        names().any(|name| {
            name.strip_prefix(prefix.as_str())
                .is_some_and(|name| FAMILIES.iter().any(|family| name.starts_with(family.sign)))
        })
    };
    let dropped = match names().any(|name| name.starts_with(PREFIX)) {
        true => PREFIX.to_owned(),
        false => prefix::shared(names()).into_iter().find(has_sign).unwrap_or_default(),
    };
    let kept = |(name, tensor): (String, StoredTensor)| Some((name.strip_prefix(&dropped)?.to_owned(), tensor));
    tensors.into_iter().filter_map(kept).collect()
}

/// What tensors of these names are, as part of a message.
pub(crate) fn what_it_is<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let is_of = |name: &str, family: &Names| name.strip_prefix(PREFIX).unwrap_or(name).starts_with(family.sign);
    if let Some(family) = FAMILIES.iter().find(|family| names.clone().any(|name| is_of(name, family))) {
        return format!("a {} transformer", family.family);
    }
    let known = |name: &str| OTHERS.iter().find(|(other, _)| name.strip_prefix(PREFIX).unwrap_or(name) == *other);
    if let Some((_, what)) = names.clone().find_map(known) {
        return (*what).to_owned();
    }
    let listed: Vec<_> = names.take(NAMES_LISTED).map(|name| format!("`{}`", shortened(name))).collect();
    if listed.is_empty() { "no tensor".to_owned() } else { format!("tensors named {} and so on", listed.join(", ")) }
}

fn describe(tensors: &BTreeMap<String, StoredTensor>, architecture: Option<&str>) -> String {
    match architecture.filter(|_| !OTHERS.iter().any(|(name, _)| tensors.contains_key(*name))) {
        Some(architecture) => format!("a model of the kind `{}`", shortened(architecture)),
        None => what_it_is(tensors.keys().map(String::as_str)),
    }
}

/// A name without its last part, and diffusers' name of that.
fn split(name: &str) -> (&str, Option<&'static str>) {
    let parameter = |(stem, last)| Some((stem, PARAMETERS.iter().find(|(known, _)| *known == last)?.1));
    match name.rsplit_once('.').and_then(parameter) {
        Some((stem, parameter)) => (stem, Some(parameter)),
        None => (name, None),
    }
}

impl Names {
    /// What a stored tensor is in diffusers. One that no rule knows keeps its name, so that it is
    /// reported as surplus. `width` is the number of columns of the matrix it belongs to.
    fn entries(
        &self,
        name: &str,
        tensor: &StoredTensor,
        width: impl Fn() -> Option<usize>,
    ) -> Result<Vec<(String, Entry)>, String> {
        let (stem, parameter) = split(name);
        let found = self.rules.iter().find_map(|(pattern, becomes)| Some((block_index(pattern, stem)?, becomes)));
        let Some((index, becomes)) = found else {
            return Ok(vec![(name.to_owned(), Entry::whole(tensor.clone()))]);
        };
        let rows = tensor.shape.first().copied().unwrap_or(0);
        let split = becomes.split(rows, width).ok_or_else(|| {
            format!("tensor `{name}` of shape {:?} cannot be split as those of {} are", tensor.shape, self.family)
        })?;
        let entry = |(target, ranges): (&str, Vec<Range<usize>>)| {
            let target = target.replace('*', index);
            let name = parameter.map_or(target.clone(), |parameter| format!("{target}.{parameter}"));
            Some((name, Entry::rows_of(tensor, &ranges)?))
        };
        let entries: Option<_> = split.into_iter().map(entry).collect();
        entries.ok_or_else(|| format!("tensor `{name}` of shape {:?} has no rows", tensor.shape))
    }
}

/// What stands for the `*` of a pattern; empty for a pattern without one.
fn block_index<'a>(pattern: &str, stem: &'a str) -> Option<&'a str> {
    match pattern.split_once('*') {
        None => (pattern == stem).then_some(""),
        Some((before, after)) => {
            let index = stem.strip_prefix(before)?.strip_suffix(after)?;
            index.bytes().all(|byte| byte.is_ascii_digit()).then_some(index)
        }
    }
}

impl Becomes {
    /// diffusers' names of what is made of it.
    fn names(&self) -> &[&'static str] {
        match self {
            Self::Nothing => &[],
            Self::One(name) | Self::Swapped(name) | Self::SwappedIfTwo(name) => std::slice::from_ref(name),
            Self::Parts(names) | Self::SquaresAndRest(names) => names,
        }
    }

    /// Names and their rows; `None` where the rows cannot be divided so.
    fn split(&self, rows: usize, width: impl Fn() -> Option<usize>) -> Option<Vec<Part>> {
        let halves = || rows.is_multiple_of(2).then(|| vec![rows / 2..rows, 0..rows / 2]);
        let part = |name: &'static str, range: Range<usize>| -> Part { (name, std::iter::once(range).collect()) };
        match self {
            Self::Nothing => Some(Vec::new()),
            Self::One(name) => Some(vec![part(name, 0..rows)]),
            Self::Swapped(name) => Some(vec![(*name, halves()?)]),
            Self::SwappedIfTwo(name) if rows == 2 * width()? => Some(vec![(*name, halves()?)]),
            Self::SwappedIfTwo(name) => Some(vec![part(name, 0..rows)]),
            Self::Parts(names) => {
                let length = rows / names.len();
                let nth = |(index, name): (usize, &&'static str)| part(name, index * length..(index + 1) * length);
                rows.is_multiple_of(names.len()).then(|| names.iter().enumerate().map(nth).collect())
            }
            Self::SquaresAndRest(names) => {
                let (last, squares) = names.split_last()?;
                let width = width()?;
                let nth = |(index, name): (usize, &&'static str)| part(name, index * width..(index + 1) * width);
                let rest = squares.len() * width..rows;
                let split = squares.iter().enumerate().map(nth).chain([part(last, rest.clone())]);
                (rest.start < rest.end).then(|| split.collect())
            }
        }
    }
}
