//! Which files hold the weights of a component.
//!
//! The same rule serves a local folder and a repository on the hub: of the forms that are there the one that
//! diffusers or transformers would load is used, and nothing of the others.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::forms::{Format, Library, NamedForm, is_index, variants_among};
use crate::formats::lora;
use crate::shown::shortened;
use crate::{CheckpointError, lenient_json, plain_file};

/// What diffusers' `save_lora_weights` writes.
pub(crate) const LORA_FILE: &str = "pytorch_lora_weights.safetensors";

/// Of file systems.
const MAX_FILE_NAME_BYTES: usize = 255;

/// The weight files of one component.
#[derive(Debug, PartialEq)]
pub(crate) struct WeightFiles {
    /// How they are encoded.
    pub format: Format,
    /// The file, or the index of the shards, that stands for this form.
    pub form: String,
    /// Names of the files that hold tensors.
    pub names: BTreeSet<String>,
    /// Tensor name to file name; empty for a form that is not sharded.
    pub index: HashMap<String, String>,
    /// The variant that they are in.
    pub variant: Option<String>,
    /// Other forms of the same variant, and GGUF files, which are not read.
    pub unused: Vec<String>,
}

/// Which weights of a component are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub library: Library,
    /// Taken where it is there.
    pub variant: Option<&'a str>,
}

/// The part of a shard index that matters here.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl WeightFiles {
    /// Chooses among the files of a component; `place` stands for it in errors, `read` gives the text of an index. `None` if there are no
    /// weights.
    pub(crate) fn choose(
        place: &str,
        files: &BTreeSet<String>,
        wanted: Wanted<'_>,
        read: impl FnOnce(&str) -> Result<String, CheckpointError>,
    ) -> Result<Option<Self>, CheckpointError> {
        let ggufs: Vec<String> = files.iter().filter(|name| name.ends_with(".gguf")).cloned().collect();
        let (variant, mut forms) = forms_there(place, files, wanted)?;
        if forms.is_empty() {
            return Self::alone(place, files, ggufs);
        }
        let (form, format) = forms.remove(0);
        let index = if is_index(&form) { weight_map(place, &form, &read(&form)?)? } else { HashMap::new() };
        let names = if index.is_empty() { BTreeSet::from([form.clone()]) } else { index.values().cloned().collect() };
        let unused = forms.into_iter().map(|(name, _)| name).chain(ggufs).filter(|name| !names.contains(name));
        Ok(Some(Self { format, unused: unused.collect(), form, names, index, variant }))
    }

    /// The GGUF file of a component that has no weights of another form, or else its only safetensors file: what is
    /// published for other programs has names of its own.
    fn alone(place: &str, files: &BTreeSet<String>, mut ggufs: Vec<String>) -> Result<Option<Self>, CheckpointError> {
        if ggufs.len() > 1 {
            return Err(CheckpointError::weights(
                place,
                format!(
                    "there are several GGUF files; give the one to use as --transformer, --text-encoder or --vae: {}",
                    ggufs.join(", ")
                ),
            ));
        }
        let is_single = |name: &&String| name.ends_with(".safetensors") && *name != LORA_FILE && !name.contains("-of-");
        let singles: Vec<_> = files.iter().filter(is_single).collect();
        let (format, form) = match (ggufs.pop(), singles.as_slice()) {
            (Some(gguf), _) => (Format::Gguf, gguf),
            (None, [single]) => (Format::Single, (*single).clone()),
            _ => return Ok(None),
        };
        Ok(Some(Self {
            format,
            names: BTreeSet::from([form.clone()]),
            form,
            index: HashMap::new(),
            variant: None,
            unused: Vec::new(),
        }))
    }

    /// The file in `folder` that these weights are, if its tensors may have other names than those of the libraries.
    pub(crate) fn single_file(&self, folder: &Path) -> Option<PathBuf> {
        matches!(self.format, Format::Gguf | Format::Single).then(|| folder.join(&self.form))
    }

    /// Chooses in a local folder.
    pub(crate) fn in_folder(folder: &Path, wanted: Wanted<'_>) -> Result<Self, CheckpointError> {
        let read = |name: &str| {
            let path = folder.join(name);
            plain_file::text(&path).map_err(|source| CheckpointError::Read { path, source })
        };
        let files = Self::choose(&folder.display().to_string(), &files_in(folder), wanted, read)?
            .ok_or_else(|| nothing_found(folder, wanted.library))?;
        match files.names.iter().find(|name| !folder.join(name).is_file()) {
            Some(shard) => Err(CheckpointError::weights(
                folder.display(),
                format!(
                    "{} names {shard}, {}",
                    files.form,
                    dangling(&folder.join(shard)).unwrap_or_else(|| "which is not there; fetch it too".to_owned())
                ),
            )),
            None => Ok(files),
        }
    }

    /// What is worth saying about this choice: forms that are not read.
    pub(crate) fn warning(&self, library: Library) -> Option<String> {
        (!self.unused.is_empty()).then(|| {
            format!(
                "there are several forms of the weights: {} is read, as in {}; not read: {}; delete what is out of date",
                self.form,
                library.name(),
                self.unused.join(", ")
            )
        })
    }
}

/// The variant that is taken and its forms, the preferred one first.
fn forms_there(
    place: &str,
    files: &BTreeSet<String>,
    wanted: Wanted<'_>,
) -> Result<(Option<String>, Vec<NamedForm>), CheckpointError> {
    for variant in [wanted.variant, None] {
        let forms = wanted.library.forms_among(files, variant);
        if !forms.is_empty() {
            return Ok((variant.map(str::to_owned), forms));
        }
    }
    let mut variants: Vec<String> = variants_among(files).into_iter().collect();
    if variants.len() > 1 {
        return Err(CheckpointError::weights(
            place,
            format!("the weights are there only as variants; choose one with --variant: {}", variants.join(", ")),
        ));
    }
    let only = variants.pop();
    let forms = only.as_deref().map(|variant| wanted.library.forms_among(files, Some(variant))).unwrap_or_default();
    Ok((only, forms))
}

fn weight_map(place: &str, name: &str, text: &str) -> Result<HashMap<String, String>, CheckpointError> {
    let index: ShardIndex = serde_json::from_str(text)
        .map_err(|error| CheckpointError::weights(place, format!("{name}: damaged shard index: {error}")))?;
    match index.weight_map.values().find(|shard| !is_plain_name(shard)) {
        Some(odd) => Err(CheckpointError::weights(
            place,
            format!("{name}: shard `{}` must be a file name without folders", shortened(odd)),
        )),
        None if index.weight_map.is_empty() => {
            Err(CheckpointError::weights(place, format!("{name}: damaged shard index: `weight_map` names no tensor")))
        }
        None => Ok(index.weight_map),
    }
}

/// The names of the files in a folder; of links, those that lead to one.
fn files_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What is wrong with a link whose content is not there; `None` for all else.
pub(crate) fn dangling(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok().filter(|_| !path.exists())?;
    Some(format!(
        "which is a link to {}, and nothing is there: in the hub's cache the content was deleted, or the folder was \
         copied without what its links lead to; fetch it again, or copy with `cp -rL`",
        target.display()
    ))
}

/// What a component's `config.json` is for.
pub(super) struct Described {
    /// Empty where it does not say.
    pub class: String,
    /// transformers wrote it.
    pub is_text_encoder: bool,
}

/// What the `config.json` in a component's folder says of it.
pub(super) fn described(folder: &Path) -> Result<Described, CheckpointError> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "_class_name", default)]
        class_name: Option<String>,
        #[serde(default)]
        architectures: Option<Vec<String>>,
        #[serde(default)]
        model_type: Option<String>,
    }
    let path = folder.join("config.json");
    let text = plain_file::text(&path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
    let parsed: Result<Config, _> = lenient_json::parse(&text).and_then(serde_json::from_value);
    match parsed {
        Ok(Config { class_name: Some(class), .. }) => Ok(Described { class, is_text_encoder: false }),
        Ok(Config { architectures, model_type, .. }) => Ok(Described {
            is_text_encoder: architectures.is_some() || model_type.is_some(),
            class: architectures.and_then(|classes| classes.into_iter().next()).unwrap_or_default(),
        }),
        Err(error) => Err(CheckpointError::config(path.display(), error.to_string())),
    }
}

/// Whether a name from a downloaded file can be used as a path component.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let is_odd = |character: char| character.is_control() || ['/', '\\'].contains(&character);
    (1..=MAX_FILE_NAME_BYTES).contains(&name.len()) && name != "." && name != ".." && !name.contains(is_odd)
}

fn nothing_found(folder: &Path, library: Library) -> CheckpointError {
    let entries = || std::fs::read_dir(folder).into_iter().flatten().flatten();
    let listed: BTreeSet<PathBuf> = entries().map(|entry| entry.path()).collect();
    let found = match listed.iter().find_map(|path| Some((path, dangling(path)?))) {
        Some((path, what)) => format!("there is {}, {what}", path.display()),
        None if !folder.is_dir() => "the folder does not exist".to_owned(),
        None if listed.is_empty() => "the folder is empty".to_owned(),
        None => {
            let names = listed.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy());
            let lora = if folder.join(LORA_FILE).is_file() {
                format!(" ({LORA_FILE} is {})", lora::ADVICE)
            } else {
                String::new()
            };
            format!("the folder holds {}{lora}", names.take(10).collect::<Vec<_>>().join(", "))
        }
    };
    CheckpointError::weights(
        folder.display(),
        format!("no weights there: looked for {}; {found}", library.looked_for()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|name| (*name).to_owned()).collect()
    }

    fn choose(files: &[&str], library: Library, variant: Option<&str>) -> Result<Option<WeightFiles>, CheckpointError> {
        let index = |_: &str| Ok(r#"{"weight_map": {"a": "shard"}}"#.to_owned());
        WeightFiles::choose("part", &names(files), Wanted { library, variant }, index)
    }

    /// What diffusers and transformers load; what they refuse is read where it is there.
    #[test]
    fn the_choice_is_that_of_the_python_libraries() {
        #[derive(Deserialize)]
        struct Case {
            library: String,
            variant: Option<String>,
            files: Vec<String>,
            local: Option<String>,
            hub: Option<String>,
        }
        let text = include_str!("../../../../tests/fixtures/weight_forms.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 140);
        for Case { library, variant, files, local, hub } in cases {
            let files: Vec<_> = files.iter().map(String::as_str).collect();
            let chosen = choose(&files, Library::named(&library), variant.as_deref()).unwrap().unwrap();
            for expected in [local, hub].into_iter().flatten() {
                assert_eq!(chosen.form, expected, "{library}, {variant:?}: {files:?}");
            }
            let of_variant = |name: &&&str| variants_among(&names(&[name])).first() == chosen.variant.as_ref();
            assert_eq!(chosen.unused.len() + 1, files.iter().filter(of_variant).count(), "{files:?}");
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        let files = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json", "a.gguf"];
        let chosen = choose(&files, Library::Diffusers, None).unwrap().unwrap();
        let warning = chosen.warning(Library::Diffusers).unwrap();
        assert!(
            warning.contains("diffusion_pytorch_model.safetensors.index.json is read, as in diffusers"),
            "{warning}"
        );
        assert!(warning.contains("not read: diffusion_pytorch_model.safetensors, a.gguf;"), "{warning}");
        let files = ["model.safetensors", "model.safetensors.index.json", "diffusion_pytorch_model.bin"];
        let chosen = choose(&files, Library::Transformers, None).unwrap().unwrap();
        assert_eq!(chosen.form, "model.safetensors");
        assert_eq!(chosen.unused, ["model.safetensors.index.json", "diffusion_pytorch_model.bin"]);
        // A variant is there to be asked for.
        let files = ["model.safetensors", "model.fp16.safetensors"];
        assert_eq!(choose(&files, Library::Transformers, None).unwrap().unwrap().warning(Library::Transformers), None);
    }

    #[test]
    fn variants_are_taken_where_they_are_asked_for_or_alone() {
        let of = |files: &[&str], variant| choose(files, Library::Diffusers, variant).unwrap().unwrap();
        let old = ["diffusion_pytorch_model.safetensors.fp16.index.json", "diffusion_pytorch_model.safetensors"];
        assert_eq!(of(&old, Some("fp16")).form, old[0]);
        assert_eq!(of(&old, Some("bf16")).variant, None);
        let only = of(&["diffusion_pytorch_model.fp16.bin"], None);
        assert_eq!((only.variant.as_deref(), only.format), (Some("fp16"), Format::Pickle));
        let several = ["model.fp16.safetensors", "model.bf16.safetensors"];
        let error = choose(&several, Library::Transformers, None).unwrap_err().to_string();
        assert!(error.ends_with("choose one with --variant: bf16, fp16"), "{error}");
    }

    #[test]
    fn the_other_librarys_names_are_better_than_none() {
        let chosen = choose(&["model.safetensors"], Library::Diffusers, None).unwrap().unwrap();
        assert_eq!(chosen.form, "model.safetensors");
        let both = ["model.safetensors", "diffusion_pytorch_model.safetensors"];
        assert_eq!(choose(&both, Library::Transformers, None).unwrap().unwrap().form, both[0]);
        assert_eq!(choose(&both, Library::Diffusers, None).unwrap().unwrap().form, both[1]);
        assert_eq!(choose(&["config.json"], Library::Diffusers, None).unwrap(), None);
    }

    /// `t5xxl_fp8_e4m3fn.safetensors` and the like.
    #[test]
    fn a_file_that_is_alone_may_have_any_name() {
        let of = |files: &[&str]| choose(files, Library::Transformers, None).unwrap();
        let chosen = of(&["config.json", "t5xxl_fp8_e4m3fn.safetensors"]).unwrap();
        assert_eq!((chosen.form.as_str(), chosen.format), ("t5xxl_fp8_e4m3fn.safetensors", Format::Single));
        assert_eq!(of(&["a.safetensors", "b.gguf"]).unwrap().format, Format::Gguf);
        for files in [["a.safetensors", "b.safetensors"], ["config.json", "model-00001-of-00002.safetensors"]] {
            assert_eq!(of(&files), None);
        }
        assert_eq!(of(&[LORA_FILE]), None);
    }
}
