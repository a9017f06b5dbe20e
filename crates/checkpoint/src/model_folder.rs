//! A model in diffusers' folder layout: `model_index.json` and one subfolder per component.
//!
//! The folder is a directory on disk (a local one, or a snapshot in the hub's cache) or the model
//! embedded in the program; the rest of the crate does not see the difference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::component_files::{FilePart, GivenFile, by_component, component_entry};
use crate::formats::lora::ADVICE as LORA_ADVICE;
use crate::weights::{LORA_FILE, Library, LoadedWeights, Wanted, Weights, dangling};
use crate::{CheckpointError, embedded, guard, lenient_json, plain_file};

/// The file that makes a directory a model folder.
pub const MODEL_INDEX: &str = "model_index.json";

/// The file that facts measured on the model for its caches are kept in.
pub const MODEL_FIT_FILE: &str = "cache_fit.json";
/// Its older name, which is still read.
const OLD_MODEL_FIT_FILE: &str = "cache_calibration.json";
/// Names of that file; the first that is there counts.
pub const MODEL_FIT_FILES: [&str; 2] = [MODEL_FIT_FILE, OLD_MODEL_FIT_FILE];

/// The file that cache settings measured on the model are kept in.
pub const CACHE_PROFILE_FILE: &str = "cache_profile.json";

/// The component that denoises.
pub const TRANSFORMER: &str = "transformer";

/// A folder with a diffusers model.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    id: String,
    place: Place,
    /// What holds weights of components in the place of the folder.
    files: BTreeMap<String, FilePart>,
    /// Which weights are read of a component that has them, such as `fp16`.
    variant: Option<String>,
    /// Where the memory of its weights is counted.
    loaded: LoadedWeights,
}

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    Embedded,
}

impl ModelFolder {
    /// Opens a local directory. Its name becomes the model's id.
    ///
    /// # Errors
    /// There is no such directory, or it holds no `model_index.json`.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let absolute =
            path.canonicalize().map_err(|source| CheckpointError::Read { path: path.to_path_buf(), source })?;
        let id = match absolute.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => "model".to_string(),
        };
        Self::directory(id, path.to_path_buf())
    }

    /// A directory that is served under another id than its name.
    pub fn directory(id: String, path: PathBuf) -> Result<Self, CheckpointError> {
        if path.join(MODEL_INDEX).is_file() {
            return Ok(Self::of_place(id, Place::Directory(path)));
        }
        let found = what_it_is_instead(&path);
        Err(CheckpointError::Folder {
            folder: path.display().to_string(),
            reason: format!("a model folder in diffusers layout has a {MODEL_INDEX}; {found}"),
        })
    }

    /// The model that is part of the program.
    pub fn embedded() -> Self {
        Self::of_place(embedded::ID.to_string(), Place::Embedded)
    }

    fn of_place(id: String, place: Place) -> Self {
        Self { id, place, files: BTreeMap::new(), variant: None, loaded: LoadedWeights::default() }
    }

    /// The same folder, and what the weights take that are loaded from it and its clones.
    pub fn counting(&self) -> (Self, LoadedWeights) {
        let loaded = LoadedWeights::default();
        (Self { loaded: loaded.clone(), ..self.clone() }, loaded)
    }

    /// The same folder with the weights of components from files, GGUF or safetensors, under the names of diffusers and
    /// transformers or those of the model's makers. All else, also the components' configurations, is the folder's.
    ///
    /// # Errors
    /// There is no such file or component, or the model is the embedded one.
    pub fn with_files(self, given: &[GivenFile]) -> Result<Self, CheckpointError> {
        let Some(first) = given.first() else { return Ok(self) };
        if matches!(self.place, Place::Embedded) {
            return Err(CheckpointError::Folder {
                folder: first.path().display().to_string(),
                reason: "weights from a file need a model folder for all else; the embedded model has none".to_owned(),
            });
        }
        let index = lenient_json::parse(&self.text(MODEL_INDEX)?).and_then(serde_json::from_value);
        let index = index.map_err(|error| CheckpointError::config(MODEL_INDEX, format!("it is damaged: {error}")))?;
        let files = by_component(&index, given)?;
        for FilePart { path, .. } in files.values() {
            std::fs::metadata(path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
        }
        Ok(Self { files, ..self })
    }

    /// The same folder under another id.
    pub(crate) fn with_id(self, id: String) -> Self {
        Self { id, ..self }
    }

    /// The same folder, of whose components those that have weights of a variant are read in it.
    pub fn with_variant(self, variant: Option<String>) -> Self {
        Self { variant, ..self }
    }

    /// Whether a component's weights come from elsewhere.
    pub fn has_file_of(&self, component: &str) -> bool {
        self.files.contains_key(component)
    }

    /// The name of the directory, the hub id (`org/name`), or `emoji-dit` for the embedded model.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory on disk; `None` for the embedded model.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory(path) => Some(path),
            Place::Embedded => None,
        }
    }

    /// Whether the folder holds the file `path`, such as `tokenizer/vocab.json`.
    pub fn contains(&self, path: &str) -> bool {
        match &self.place {
            Place::Directory(folder) => {
                let path = folder.join(path);
                let other = || (path.exists() && !path.is_file()).then(|| "which is no plain file".to_owned());
                if let Some(what) = dangling(&path).or_else(other) {
                    tracing::warn!("{} is passed over, {what}", path.display());
                }
                path.is_file()
            }
            Place::Embedded => embedded::file(path).is_some(),
        }
    }

    /// The content of a file, such as `tokenizer/spiece.model`.
    ///
    /// # Errors
    /// The file is missing or unreadable, no plain file, or larger than files of its kind are.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, CheckpointError> {
        let bytes = match &self.place {
            Place::Directory(folder) => plain_file::bytes(&folder.join(path)),
            Place::Embedded => {
                embedded::file(path).map(|file| file.bytes.to_vec()).ok_or(std::io::ErrorKind::NotFound.into())
            }
        };
        bytes.map_err(|source| self.read_error(path, source))
    }

    /// The content of a text file, such as `transformer/config.json`.
    ///
    /// # Errors
    /// As [`Self::bytes`], or it is not UTF-8.
    pub fn text(&self, path: &str) -> Result<String, CheckpointError> {
        let text = match &self.place {
            Place::Directory(folder) => plain_file::text(&folder.join(path)),
            Place::Embedded => {
                embedded::file(path).ok_or_else(|| std::io::ErrorKind::NotFound.into()).and_then(|file| {
                    String::from_utf8(file.bytes.to_vec()).map_err(|_| std::io::ErrorKind::InvalidData.into())
                })
            }
        };
        text.map_err(|source| self.read_error(path, source))
    }

    /// Opens the weights of a component, such as `transformer`.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn weights(&self, component: &str) -> Result<Arc<Weights>, CheckpointError> {
        let place = self.display_path(component);
        let weights = guard::without_panic(|| self.open_weights(component))
            .unwrap_or_else(|what| Err(CheckpointError::weights(place.display(), what)))?;
        weights.counted_in(&self.loaded, component);
        Ok(weights)
    }

    fn open_weights(&self, component: &str) -> Result<Arc<Weights>, CheckpointError> {
        match (&self.place, self.files.get(component)) {
            (Place::Directory(folder), Some(FilePart { path, prefix })) => {
                Weights::open_part(path, prefix, &folder.join(component))
            }
            (Place::Directory(folder), _) => {
                let wanted = Wanted { library: self.library_of(component), variant: self.variant.as_deref() };
                Weights::open_wanted(&folder.join(component), wanted)
            }
            (Place::Embedded, _) => {
                let path = format!("{component}/diffusion_pytorch_model.safetensors");
                let file = embedded::file(&path).ok_or_else(|| CheckpointError::Component {
                    model: format!("the embedded model {}", self.id),
                    component: component.to_owned(),
                })?;
                Weights::embedded(&format!("{}/{path}", self.id), file.bytes)
            }
        }
    }

    /// The library that `model_index.json` names for a component. What is wrong with that file is said where it is
    /// read.
    fn library_of(&self, component: &str) -> Library {
        let index = self.text(MODEL_INDEX).ok().and_then(|text| lenient_json::parse(&text).ok());
        let entry = index.as_ref().and_then(|index| component_entry(index.get(component)?));
        entry.map_or(Library::Diffusers, |(library, _)| Library::named(library))
    }

    fn read_error(&self, path: &str, source: std::io::Error) -> CheckpointError {
        let path = self.display_path(path);
        match dangling(&path) {
            Some(reason) => CheckpointError::DanglingLink { path, reason },
            None => CheckpointError::Read { path, source },
        }
    }

    fn display_path(&self, path: &str) -> PathBuf {
        match &self.place {
            Place::Directory(folder) => folder.join(path),
            Place::Embedded => Path::new(&self.id).join(path),
        }
    }
}

/// What a path is that is no model folder.
fn what_it_is_instead(path: &Path) -> String {
    if path.is_file() {
        return "it is a file".to_owned();
    }
    if let Some(what) = dangling(&path.join(MODEL_INDEX)) {
        return format!("there is one, {what}");
    }
    if let Some(id) = cached_id(path) {
        return format!(
            "this is the folder in which the hub's cache keeps {id}; give `{id}`, or one of its snapshots/*"
        );
    }
    if path.join(LORA_FILE).is_file() {
        return format!("it holds {LORA_FILE}, {LORA_ADVICE}");
    }
    if path.join("config.json").is_file() {
        return "it holds a config.json, so it may be one component of a model; give its parent folder".to_owned();
    }
    "there is none".to_owned()
}

/// The model that a folder `models--org--name` is named after.
pub(crate) fn cached_id(path: &Path) -> Option<String> {
    let (organisation, name) = path.file_name()?.to_str()?.strip_prefix("models--")?.split_once("--")?;
    Some(format!("{organisation}/{name}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn embedded_model_opens() {
        let folder = ModelFolder::embedded();
        assert_eq!(folder.id(), "emoji-dit");
        assert_eq!(folder.path(), None);
        assert!(folder.text(MODEL_INDEX).unwrap().contains("DiTPipeline"));
        for component in ["transformer", "vae"] {
            assert!(folder.contains(&format!("{component}/config.json")));
            let weights = folder.weights(component).unwrap();
            let builder = weights.var_builder(DType::F32, &Device::Cpu);
            for name in weights.names() {
                builder.get_unchecked(name).unwrap();
            }
            weights.finish(&[]).unwrap();
        }
    }

    #[test]
    fn embedded_model_names_what_it_lacks() {
        let folder = ModelFolder::embedded();
        let error = folder.text("tokenizer/vocab.json").unwrap_err().to_string();
        assert!(error.contains("emoji-dit/tokenizer/vocab.json"), "{error}");
        let error = folder.weights("unet").unwrap_err().to_string();
        assert!(error.contains("no component `unet`"), "{error}");
    }

    /// The embedded model has its weights in f16.
    #[test]
    fn what_weights_take_is_counted_as_they_are_loaded() {
        for (dtype, is_read) in [(DType::F32, true), (DType::F16, true), (DType::F32, false)] {
            let (folder, loaded) = ModelFolder::embedded().counting();
            let mut numbers = 0;
            for component in ["transformer", "vae"] {
                let weights = folder.weights(component).unwrap();
                let parameters = match is_read {
                    true => weights.parameters(dtype, &Device::Cpu),
                    false => weights.unread_parameters(dtype, &Device::Cpu),
                };
                for name in weights.names() {
                    numbers += parameters.get(weights.shape(name).unwrap(), name).unwrap().elem_count() as u64;
                }
            }
            let found = loaded.by_component();
            assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["transformer", "vae"]);
            let (read, on_demand) =
                found.iter().fold((0, 0), |sum, (_, bytes)| (sum.0 + bytes.read, sum.1 + bytes.on_demand));
            if is_read {
                assert_eq!((read, on_demand), (numbers * dtype.size_in_bytes() as u64, 0));
            } else {
                // Large matrices would stay in f16.
                assert!(read == 0 && (2 * numbers..=4 * numbers).contains(&on_demand), "{on_demand} of {numbers}");
            }
        }
    }

    #[test]
    fn a_directory_is_known_by_its_name() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("my-dit");
        fs::create_dir_all(path.join("vae")).unwrap();
        fs::write(path.join(MODEL_INDEX), "{}").unwrap();
        fs::write(path.join("vae/config.json"), "{\"a\": 1}").unwrap();
        let folder = ModelFolder::open(&path.join("vae/..")).unwrap();
        assert_eq!(folder.id(), "my-dit");
        assert_eq!(folder.text("vae/config.json").unwrap(), "{\"a\": 1}");
        assert!(!folder.contains("vae/model.json"));
        let error = folder.text("unet/config.json").unwrap_err().to_string();
        assert!(error.contains("unet/config.json"), "{error}");
        assert!(folder.weights("vae").is_err());
    }

    #[test]
    fn links_without_content_are_named() {
        let parent = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("../../blobs/0123", parent.path().join(MODEL_INDEX)).unwrap();
        let error = ModelFolder::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains("there is one, which is a link to ../../blobs/0123, and nothing is there"), "{error}");
        fs::remove_file(parent.path().join(MODEL_INDEX)).unwrap();
        fs::write(parent.path().join(MODEL_INDEX), "{}").unwrap();
        fs::create_dir(parent.path().join("vae")).unwrap();
        std::os::unix::fs::symlink("../../../blobs/4567", parent.path().join("vae/config.json")).unwrap();
        let error = ModelFolder::open(parent.path()).unwrap().text("vae/config.json").unwrap_err().to_string();
        assert!(error.contains("vae/config.json, which is a link to ../../../blobs/4567"), "{error}");
    }

    #[test]
    fn folders_of_the_hubs_cache_and_loras_are_named() {
        let parent = tempfile::tempdir().unwrap();
        let cached = parent.path().join("models--facebook--DiT-XL-2-256");
        fs::create_dir_all(cached.join("snapshots/0123")).unwrap();
        let error = ModelFolder::open(&cached).unwrap_err().to_string();
        assert!(error.contains("give `facebook/DiT-XL-2-256`, or one of its snapshots/*"), "{error}");
        fs::write(parent.path().join(LORA_FILE), "").unwrap();
        let error = ModelFolder::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains("it holds pytorch_lora_weights.safetensors, a LoRA"), "{error}");
    }

    /// Each library's own names, and its own order.
    #[test]
    fn the_index_says_whose_weights_they_are() {
        let parent = tempfile::tempdir().unwrap();
        let index = r#"{"part": ["transformers", "T5EncoderModel"], "other": ["diffusers", "AutoencoderKL"]}"#;
        fs::write(parent.path().join(MODEL_INDEX), index).unwrap();
        for component in ["part", "other"] {
            let folder = parent.path().join(component);
            fs::create_dir(&folder).unwrap();
            for (name, file) in [("a", "model.safetensors"), ("b", "diffusion_pytorch_model.safetensors")] {
                let tensor = candle_core::Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
                candle_core::safetensors::save(&[(name, tensor)].into(), folder.join(file)).unwrap();
            }
        }
        let folder = ModelFolder::open(parent.path()).unwrap();
        assert!(folder.weights("part").unwrap().names().eq(["a"]));
        assert!(folder.weights("other").unwrap().names().eq(["b"]));
    }

    #[test]
    fn other_directories_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let error = ModelFolder::open(parent.path()).unwrap_err().to_string();
        assert!(error.ends_with("has a model_index.json; there is none"), "{error}");
        let missing = ModelFolder::open(&parent.path().join("absent"));
        assert!(matches!(missing, Err(CheckpointError::Read { .. })));
        fs::write(parent.path().join("config.json"), "{}").unwrap();
        let error = ModelFolder::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains("give its parent folder"), "{error}");
        let error = ModelFolder::open(&parent.path().join("config.json"));
        assert!(error.unwrap_err().to_string().contains("it is a file"));
    }
}
