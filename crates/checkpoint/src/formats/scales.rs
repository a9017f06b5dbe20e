//! The scales of fp8 weights, which files keep as tensors of their own, and what else stands beside such weights.
//!
//! A weight `X.weight` is what is stored times a number, or times one for each row. Its name is `X.scale_weight` in
//! ComfyUI's older files, `X.weight_scale` in its newer ones and in those of ModelOpt and compressed-tensors, and
//! `X.weight_scale_inv` in those of transformers, which multiply with it, too. Scales are read when files are opened and
//! belong to their weights from then on, wherever rows of those go. What cannot be honoured is refused, with the tensor's name: a
//! picture made without a scale is noise.
//!
//! ComfyUI marks what is scaled: a model by a tensor `scaled_fp8`, a layer by `X.comfy_quant`, a JSON text. Scales of
//! activations are for products in fp8, which are not made here.

use std::collections::{HashMap, HashSet};

use ::safetensors::Dtype;
use serde::Deserialize;
use serde_json::Value;

use crate::CheckpointError;
use crate::shown::shortened;
use crate::stored::encoding::Encoding;
use crate::stored::float8::{Float8, Scale};
use crate::stored::source::Source;
use crate::stored::tensor::StoredTensor;

/// What is said of a whole model.
const MARKER: &str = "scaled_fp8";
/// Formats that a description may name.
const FORMATS: [(&str, Float8); 4] = [
    ("float8_e4m3fn", Float8::E4M3),
    ("float8_e4m3fn_rowwise", Float8::E4M3),
    ("float8_e5m2", Float8::E5M2),
    ("float8_e5m2_rowwise", Float8::E5M2),
];
/// Published descriptions have some tens of bytes.
const MAX_DESCRIPTION_BYTES: usize = 4096;

type Named = (String, StoredTensor);

/// What a tensor beside `X.weight` says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Scale,
    InputScale,
    Description,
}

impl Beside {
    fn of(parameter: &str) -> Option<Self> {
        match parameter {
            "scale_weight" | "weight_scale" | "weight_scale_inv" => Some(Self::Scale),
            "scale_input" | "input_scale" | "activation_scale" => Some(Self::InputScale),
            "comfy_quant" => Some(Self::Description),
            _ => None,
        }
    }
}

/// `X.comfy_quant`
#[derive(Deserialize)]
struct Description {
    format: String,
    /// The weights are rotated.
    #[serde(default)]
    convrot: Value,
}

/// Gives fp8 weights the scales that are stored beside them, of the component whose names begin with `prefix`: what stands
/// beside others is not looked at. Scales and marks are not among the tensors any more.
///
/// # Errors
/// A scale that is not finite and above 0, of another shape than one number or one for each row, missing, there twice,
/// or that of a weight that is not there or not of fp8; or a description of something else than that.
pub(crate) fn applied(
    mut tensors: Vec<Named>,
    prefix: &str,
    sources: &[Source],
) -> Result<Vec<Named>, CheckpointError> {
    if !tensors.iter().any(|(_, tensor)| is_fp8(tensor)) {
        return Ok(tensors);
    }
    let is_marker = |name: &str| name.rsplit('.').next() == Some(MARKER);
    // The mark of a whole file is about all of its components.
    let marks_part = |name: &str| is_marker(name) && prefix.starts_with(&name[..name.len() - MARKER.len()]);
    tensors.retain(|(name, _)| name.starts_with(prefix) || marks_part(name));
    let is_beside = |name: &str| name.rsplit_once('.').is_some_and(|(_, parameter)| Beside::of(parameter).is_some());
    let (marks, tensors): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|(name, _)| is_marker(name));
    let (beside, tensors): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|(name, _)| is_beside(name));
    let mut weights = Fp8Weights::new(tensors, sources);
    beside.iter().try_for_each(|(name, tensor)| weights.take(name, tensor))?;
    weights.check_complete(&marks)?;
    Ok(weights.tensors)
}

fn is_fp8(tensor: &StoredTensor) -> bool {
    matches!(tensor.encoding, Encoding::Float8(_))
}

struct Fp8Weights<'a> {
    sources: &'a [Source],
    tensors: Vec<Named>,
    places: HashMap<String, usize>,
    /// Those that have got their scale.
    scaled: HashSet<usize>,
    /// Those that must have one, and what says so.
    described: Vec<(usize, String)>,
    input_scales: usize,
}

impl<'a> Fp8Weights<'a> {
    fn new(tensors: Vec<Named>, sources: &'a [Source]) -> Self {
        let places = tensors.iter().enumerate().map(|(index, (name, _))| (name.clone(), index)).collect();
        Self { sources, tensors, places, scaled: HashSet::new(), described: Vec::new(), input_scales: 0 }
    }

    /// Does with `tensor` what its name asks for.
    fn take(&mut self, name: &str, tensor: &StoredTensor) -> Result<(), CheckpointError> {
        let Some((stem, parameter)) = name.rsplit_once('.') else { return Ok(()) };
        let source = &self.sources[tensor.source];
        let fault =
            |what: String| CheckpointError::tensor(source, name, format!("tensor `{}` {what}", shortened(name)));
        let weight_name = format!("{stem}.weight");
        let Some(&index) = self.places.get(&weight_name) else {
            return Err(fault(format!("belongs to `{}`, which is not there", shortened(&weight_name))));
        };
        let Encoding::Float8(format) = self.tensors[index].1.encoding else {
            let found = self.tensors[index].1.encoding;
            return Err(fault(format!(
                "belongs to `{}`, which is stored as {found}; scaled weights are read as F8_E4M3 and F8_E5M2 only",
                shortened(&weight_name)
            )));
        };
        match Beside::of(parameter) {
            Some(Beside::Scale) => {
                if !self.scaled.insert(index) {
                    return Err(fault(format!("is a second scale of `{}`", shortened(&weight_name))));
                }
                let scale = read_scale(name, tensor, &self.tensors[index].1.shape, source)?;
                self.tensors[index].1.scale = scale.map_err(fault)?;
            }
            Some(Beside::InputScale) => self.input_scales += 1,
            Some(Beside::Description) => {
                check_description(&description_bytes(tensor, source)?, format).map_err(fault)?;
                self.described.push((index, name.to_owned()));
            }
            None => {}
        }
        Ok(())
    }

    /// Whether all that must have a scale have got one.
    fn check_complete(&self, marks: &[Named]) -> Result<(), CheckpointError> {
        let described = self.described.iter().map(|(index, by)| (*index, by.as_str()));
        let marked = marks.iter().flat_map(|(mark, _)| {
            let prefix = &mark[..mark.len() - MARKER.len()];
            let is_matrix = move |(name, tensor): &Named| {
                is_fp8(tensor) && tensor.shape.len() == 2 && name.starts_with(prefix) && name.ends_with(".weight")
            };
            let matrices = self.tensors.iter().enumerate().filter(move |(_, tensor)| is_matrix(tensor));
            matrices.map(|(index, _)| (index, mark.as_str()))
        });
        if let Some((index, by)) = described.chain(marked).find(|(index, _)| !self.scaled.contains(index)) {
            let (name, tensor) = &self.tensors[index];
            let (shown, by) = (shortened(name), shortened(by));
            let what = format!("tensor `{shown}` has no scale, and `{by}` says that it has one");
            return Err(CheckpointError::tensor(&self.sources[tensor.source], name, what));
        }
        if self.input_scales > 0 {
            tracing::info!("{} scales of activations are not used: products are not made in fp8", self.input_scales);
        }
        Ok(())
    }
}

/// The scale of a weight of this shape, or what is wrong with it.
fn read_scale(
    name: &str,
    tensor: &StoredTensor,
    weight: &[usize],
    source: &Source,
) -> Result<Result<Scale, String>, CheckpointError> {
    let rows = weight.first().copied().unwrap_or(1);
    let count: usize = tensor.shape.iter().product();
    if count != 1 && (count != rows || tensor.shape.first() != Some(&rows)) {
        return Ok(Err(format!(
            "has shape {:?}; read is a scale of one number, or of one for each of the {rows} rows of its weight, and \
             none of blocks",
            tensor.shape
        )));
    }
    let values = tensor.f32_values(name, source)?;
    if let Some(odd) = values.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        return Ok(Err(format!("holds {odd}; a scale is a finite number above 0")));
    }
    Ok(Ok(match values.as_slice() {
        [scale] => Scale::Tensor(*scale),
        _ => Scale::Rows(values),
    }))
}

/// The text of a description; nothing for what cannot be one.
fn description_bytes(tensor: &StoredTensor, source: &Source) -> Result<Vec<u8>, CheckpointError> {
    match tensor.encoding {
        Encoding::Plain(Dtype::U8 | Dtype::I8) if tensor.bytes() <= MAX_DESCRIPTION_BYTES => tensor.stored(source),
        _ => Ok(Vec::new()),
    }
}

/// Whether a description is one of weights that are stored in `stored`.
fn check_description(text: &[u8], stored: Float8) -> Result<(), String> {
    let description: Description =
        serde_json::from_slice(text).map_err(|error| format!("is no description of a layer's format: {error}"))?;
    let format = shortened(&description.format);
    match FORMATS.iter().find(|(name, _)| *name == description.format) {
        Some((_, described)) if *described != stored => {
            return Err(format!("says that its weight is {format}, which is stored as {stored}"));
        }
        Some(_) => {}
        None => {
            let known = FORMATS.map(|(name, _)| name).join(", ");
            return Err(format!("says that its weight is {format}; read are {known}"));
        }
    }
    match description.convrot {
        Value::Null | Value::Bool(false) => Ok(()),
        _ => Err("says that its weight is rotated (convrot), which is not undone here".to_owned()),
    }
}

#[cfg(test)]
mod tests;
