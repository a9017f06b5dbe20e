//! The tensors of one component (a transformer, a VAE, a text encoder) of a model folder.
//!
//! [`Weights`] opens what diffusers and the hub store (safetensors or PyTorch pickles, in one file or
//! in shards), or bytes embedded in the program, and hands tensors to model code through candle's
//! [`VarBuilder`]. Opening reads headers only. A tensor is read when it is asked for, straight into
//! its final buffer, so loading needs the memory of the weights and of about one tensor more.
//! Nothing is memory-mapped: mapped pages would count against the process a second time.
//!
//! A component may also come from a file of its own or from a part of one, `.gguf` or `.safetensors`, under the names of
//! its makers ([`Weights::open_file`], [`Weights::open_part`]).
//!
//! Loading is strict. A missing or wrongly shaped tensor is an error that names it, and
//! [`Weights::finish`] reports every tensor that no part of the model asked for.

mod builders;
mod facts;
mod files;
mod forms;
mod loaded;
mod names;
mod parameters;
mod single_file;
mod taking;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device};
use candle_nn::VarBuilder;

use crate::CheckpointError;
use crate::formats::gguf::GgufFacts;
use crate::formats::lora::ADVICE as LORA_ADVICE;
use crate::formats::{lora, pickle, prefix, safetensors, scales};
use crate::shown::{check_names, shortened};
use crate::stored::arrangement::Arrangement;
use crate::stored::entry::Entry;
use crate::stored::source::Source;
use crate::stored::tensor::StoredTensor;
use builders::SharedWeights;
pub use facts::Fact;
pub(crate) use files::{LORA_FILE, Wanted, WeightFiles, dangling, is_plain_name};
use forms::Format;
pub(crate) use forms::Library;
pub use forms::is_variant;
use loaded::Counters;
pub use loaded::{LoadedBytes, LoadedWeights};
use names::current_name;
pub use parameters::{Parameters, Quantization};
pub(crate) use single_file::tensors_in;

/// How many times as large as their file tensors may be together: some share what is stored, such as the tables of
/// tokens of an encoder and its decoder. More of that would let a small file ask for any memory.
const MAX_SHARING: u64 = 4;

/// How many surplus tensors an error lists by name.
const NAMES_LISTED: usize = 10;

/// All tensors of one component, on disk or embedded in the program.
#[derive(Debug)]
pub struct Weights {
    place: String,
    sources: Vec<Source>,
    tensors: BTreeMap<String, Entry>,
    /// What all names begin with, if anything, and how much of it the model knows nothing of.
    shared_prefixes: Vec<String>,
    dropped_prefix: OnceLock<String>,
    /// Dimensions of one may be left out and kernels be stored as matrices, as in files of other
    /// programs.
    shapes_are_loose: bool,
    /// Tensors that are stored in another form, by name.
    arrangements: BTreeMap<String, Arrangement>,
    /// What a GGUF file says of the model.
    facts: GgufFacts,
    /// Where what is taken is counted.
    counters: OnceLock<Arc<Counters>>,
}

impl Weights {
    /// Opens the weights in `folder` that diffusers would load: shards with an index, then
    /// `diffusion_pytorch_model.safetensors`, then `.bin`; then the names of transformers; then a file that is alone.
    ///
    /// # Errors
    /// None of them exists, a shard is missing, or a file is damaged or of a kind that is not read.
    pub fn open(folder: &Path) -> Result<Arc<Self>, CheckpointError> {
        Self::open_wanted(folder, Wanted { library: Library::Diffusers, variant: None })
    }

    /// Opens the weights in `folder` that a library would load.
    pub fn open_wanted(folder: &Path, wanted: Wanted<'_>) -> Result<Arc<Self>, CheckpointError> {
        let files = WeightFiles::in_folder(folder, wanted)?;
        if let Some(file) = files.single_file(folder) {
            return Self::open_file(&file, folder);
        }
        let mut weights = Self::empty(folder.display().to_string());
        let mut tensors = Vec::new();
        for name in &files.names {
            let source = Source::open(&folder.join(name))?;
            let found = match files.format {
                Format::Pickle => pickle::tensors(&source)?,
                _ => safetensors::tensors(&source)?,
            };
            let index = weights.sources.len();
            tensors.extend(found.into_iter().map(|(name, tensor)| (name, tensor.in_source(index))));
            weights.sources.push(source);
        }
        weights.check_index(&files.index, &tensors)?;
        // A shard may hold scales of another's weights.
        let tensors = scales::applied(tensors, "", &weights.sources)?;
        weights.add(whole(tensors))?;
        weights.check_is_model()?;
        Ok(Arc::new(weights.complete()))
    }

    /// Opens a safetensors file that is part of the program; `name` stands for it in errors.
    ///
    /// # Errors
    /// The bytes are not a well-formed safetensors file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Arc<Self>, CheckpointError> {
        let source = Source::memory(name, bytes);
        let tensors = safetensors::tensors(&source)?;
        Self::empty(name.to_string()).of_one(source, whole(tensors))
    }

    /// A builder that gives model code these tensors in `dtype` on `device`.
    pub fn var_builder(self: &Arc<Self>, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let backend = Box::new(SharedWeights(Arc::clone(self)));
        VarBuilder::from_backend(backend, dtype, device.clone())
    }

    /// The same for modules whose weights may be quantised.
    pub fn parameters(self: &Arc<Self>, dtype: DType, device: &Device) -> Parameters {
        Parameters::new(Arc::clone(self), dtype, device)
    }

    /// The same without reading: names, shapes and element types are checked, and every tensor is zeros that
    /// take no memory. For a model that is to be loaded later.
    pub fn unread_parameters(self: &Arc<Self>, dtype: DType, device: &Device) -> Parameters {
        Parameters::unread(Arc::clone(self), dtype, device)
    }

    /// Reports every tensor that was never taken, except those whose name starts with a prefix in
    /// `ignore` (such as `encoder.` when only a VAE's decoder is loaded).
    ///
    /// # Errors
    /// A tensor is left over: the weights belong to another model than the configuration describes.
    pub fn finish(&self, ignore: &[&str]) -> Result<(), CheckpointError> {
        let dropped = self.dropped_prefix.get().map_or("", String::as_str);
        let surplus: Vec<&str> = self
            .tensors
            .iter()
            .filter(|(_, entry)| !entry.is_taken())
            .map(|(name, _)| name.strip_prefix(dropped).unwrap_or(name))
            .filter(|name| !ignore.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        if surplus.is_empty() {
            return Ok(());
        }
        let listed = surplus[..surplus.len().min(NAMES_LISTED)].join("`, `");
        let more = match surplus.len().saturating_sub(NAMES_LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(CheckpointError::tensor(
            &self.place,
            surplus[0],
            format!(
                "the model that config.json describes has no place for {} of the {} tensors: `{listed}`{more}",
                surplus.len(),
                self.tensors.len(),
            ),
        ))
    }

    /// Bytes of all tensors as they are stored.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(Entry::bytes).sum()
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The stored shape of the tensor `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.lookup(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// Tensors of one source.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_source(source: Source, entries: Vec<(String, Entry)>) -> Result<Arc<Self>, CheckpointError> {
        Self::empty(source.to_string()).of_one(source, entries)
    }

    fn empty(place: String) -> Self {
        Self {
            place,
            sources: Vec::new(),
            tensors: BTreeMap::new(),
            shared_prefixes: Vec::new(),
            dropped_prefix: OnceLock::new(),
            shapes_are_loose: false,
            arrangements: BTreeMap::new(),
            facts: GgufFacts::default(),
            counters: OnceLock::new(),
        }
    }

    /// Counts the memory of what is taken from now on as that of a component.
    pub(crate) fn counted_in(&self, loaded: &LoadedWeights, component: &str) {
        self.counters.get_or_init(|| loaded.of(component));
    }

    /// With all tensors added.
    fn complete(mut self) -> Self {
        self.shared_prefixes = prefix::shared(self.names());
        self
    }

    /// With tensors of one source.
    fn of_one(mut self, source: Source, entries: Vec<(String, Entry)>) -> Result<Arc<Self>, CheckpointError> {
        self.sources.push(source);
        self.add(entries)?;
        Ok(Arc::new(self.complete()))
    }

    /// Adds tensors of [`Self::sources`].
    fn add(&mut self, entries: Vec<(String, Entry)>) -> Result<(), CheckpointError> {
        for (index, source) in self.sources.iter().enumerate() {
            let own = || entries.iter().filter(|(_, entry)| entry.source_index() == index);
            let bytes = own().fold(0u64, |sum, (_, entry)| sum.saturating_add(entry.bytes()));
            if bytes > source.len().saturating_mul(MAX_SHARING) {
                return Err(source.damaged(format!(
                    "its tensors have {bytes} bytes together, the file {}: too many share the same bytes",
                    source.len()
                )));
            }
            check_names(own().map(|(name, _)| name.as_str())).map_err(|what| source.damaged(what))?;
        }
        for (name, entry) in entries {
            let name = current_name(name);
            let source = entry.source_index();
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(CheckpointError::tensor(
                    &self.sources[source],
                    &name,
                    format!("tensor `{}` is stored a second time, also in this or an earlier shard", shortened(&name)),
                ));
            }
        }
        Ok(())
    }

    /// Every tensor that a shard index promises must be there.
    fn check_index(
        &self,
        index: &HashMap<String, String>,
        tensors: &[(String, StoredTensor)],
    ) -> Result<(), CheckpointError> {
        let there: HashSet<String> = tensors.iter().map(|(name, _)| current_name(name.clone())).collect();
        for (name, file) in index {
            if !there.contains(&current_name(name.clone())) {
                return Err(CheckpointError::tensor(
                    &self.place,
                    name,
                    format!(
                        "the shard index says that tensor `{}` is in {}, but it is not there",
                        shortened(name),
                        shortened(file)
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_is_model(&self) -> Result<(), CheckpointError> {
        match lora::sign(self.tensors.keys().map(String::as_str)) {
            Some(sign) => {
                Err(CheckpointError::tensor(&self.place, sign, format!("it holds `{sign}` and so on, {LORA_ADVICE}")))
            }
            None => Ok(()),
        }
    }

    fn find(&self, name: &str, expected: Option<&[usize]>) -> Result<&Entry, CheckpointError> {
        let Some((prefix, entry)) = self.lookup(name) else {
            return Err(self.missing(name));
        };
        self.dropped_prefix.get_or_init(|| {
            if !prefix.is_empty() {
                tracing::info!("{}: the names of all tensors begin with `{prefix}`, which is left out", self.place);
            }
            prefix.to_owned()
        });
        match expected {
            Some(expected) if !self.fits(&entry.shape, expected) => Err(CheckpointError::tensor(
                entry.source(&self.sources),
                name,
                format!(
                    "tensor `{name}` has shape {:?}, but config.json describes a model that needs {expected:?}",
                    entry.shape,
                ),
            )),
            _ => Ok(entry),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.lookup(name).is_some()
    }

    /// The tensor that the model calls `name`, and the prefix that the file has before it.
    fn lookup(&self, name: &str) -> Option<(&str, &Entry)> {
        let at = |prefix: &'_ str| self.tensors.get(&format!("{prefix}{name}"));
        match self.dropped_prefix.get() {
            Some(prefix) => Some((prefix, at(prefix)?)),
            None => {
                let prefixes = std::iter::once("").chain(self.shared_prefixes.iter().map(String::as_str));
                prefixes.into_iter().find_map(|prefix| Some((prefix, at(prefix)?)))
            }
        }
    }

    fn fits(&self, stored: &[usize], expected: &[usize]) -> bool {
        let outer = |shape: &[usize]| shape.iter().copied().find(|size| *size != 1);
        let elements = |shape: &[usize]| shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        stored == expected
            || self.shapes_are_loose && elements(stored) == elements(expected) && outer(stored) == outer(expected)
    }

    fn missing(&self, name: &str) -> CheckpointError {
        let closest = self.names().min_by_key(|candidate| strsim::levenshtein(candidate, name));
        let hint = match closest {
            Some(closest) => format!("the closest name there is `{}`", shortened(closest)),
            None => "it holds no tensor at all".to_string(),
        };
        CheckpointError::tensor(&self.place, name, format!("tensor `{name}` is missing; {hint}"))
    }
}

fn whole(tensors: Vec<(String, StoredTensor)>) -> Vec<(String, Entry)> {
    tensors.into_iter().map(|(name, tensor)| (name, Entry::whole(tensor))).collect()
}

#[cfg(test)]
mod single_file_tests;
#[cfg(test)]
mod tests;
