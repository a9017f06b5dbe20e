use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use candle_core::{DType, Device};
use tempfile::TempDir;

use super::stand_in::{COMMIT, Mood, OLD_ID, StandInHub};
use super::*;

const ID: &str = "acme/tiny-dit";

/// What repositories of published models have beside what a pipeline reads.
const NOT_NEEDED: [&str; 6] = [
    "README.md",
    "tiny_dit.safetensors",
    "transformer/diffusion_flax_model.msgpack",
    "transformer/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.fp16.bin",
];

const TRANSFORMER_FP16: &str = "transformer/diffusion_pytorch_model.fp16.safetensors";
const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";
/// Where their content is kept.
const TRANSFORMER_BLOB: &str = "blobs/large-transformer-diffusion_pytorch_model-safetensors";

/// A hub with a tiny model, and an empty cache.
struct Setup {
    hub: StandInHub,
    options: HubOptions,
    _folder: TempDir,
    root: PathBuf,
}

/// Elements of the transformer's only tensor: enough for downloads that break off.
const ELEMENTS: usize = 150_000;

/// A model as far as the hub is concerned: files, and what `model_index.json` says of them.
fn write_model(root: &Path) {
    let index = r#"{"_class_name": "DiTPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}"#;
    for (path, text) in [
        ("model_index.json", index),
        ("scheduler/scheduler_config.json", r#"{"_class_name": "DDIMScheduler"}"#),
        ("transformer/config.json", r#"{"_class_name": "DiTTransformer2DModel"}"#),
        ("vae/config.json", r#"{"_class_name": "AutoencoderKL"}"#),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    for (component, elements) in [("transformer", ELEMENTS), ("vae", 1000)] {
        let tensor = candle_core::Tensor::arange(0f32, elements as f32, &candle_core::Device::Cpu).unwrap();
        let path = root.join(component).join("diffusion_pytorch_model.safetensors");
        candle_core::safetensors::save(&HashMap::from([("proj_out_2.weight", tensor)]), path).unwrap();
    }
}

fn setup(mood: Mood) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    write_model(&root);
    for path in NOT_NEEDED {
        fs::write(root.join(path), "not needed").unwrap();
    }
    let hub = StandInHub::start(ID, &root, mood);
    let options = HubOptions {
        endpoint: hub.endpoint.clone(),
        cache_dir: folder.path().join("home/hub"),
        token: Token::Absent,
        offline: false,
        revision: "main".to_string(),
        patience: Duration::from_secs(10),
        progress: Arc::new(LoggedProgress::default()),
        files: Vec::new(),
        config_from: None,
        variant: None,
    };
    Setup { hub, options, _folder: folder, root }
}

impl Setup {
    /// What there is of the transformer's weights until they are complete.
    fn part(&self) -> PathBuf {
        self.options.cache_dir.join(format!("models--acme--tiny-dit/{TRANSFORMER_BLOB}.part"))
    }

    /// As an earlier start left it.
    fn leave_part(&self, content: &[u8]) {
        fs::create_dir_all(self.part().parent().unwrap()).unwrap();
        fs::write(self.part(), content).unwrap();
    }

    fn assert_transformer(&self, folder: &ModelFolder) {
        let fetched = fs::read(folder.path().unwrap().join(TRANSFORMER)).unwrap();
        assert!(fetched == fs::read(self.root.join(TRANSFORMER)).unwrap(), "{} bytes", fetched.len());
        assert!(!self.part().exists());
    }
}

fn error_of(setup: &Setup) -> String {
    resolve(ID, &setup.options).unwrap_err().to_string()
}

fn assert_complete(folder: &ModelFolder) {
    for component in ["transformer", "vae"] {
        let weights = folder.weights(component).unwrap();
        let builder = weights.var_builder(DType::F32, &Device::Cpu);
        for name in weights.names() {
            builder.get_unchecked(name).unwrap();
        }
    }
}

#[test]
fn a_repository_is_fetched_into_the_standard_cache() {
    let setup = setup(Mood::Friendly);
    let folder = resolve(ID, &setup.options).unwrap();
    assert_eq!(folder.id(), ID);
    let repository = setup.options.cache_dir.join("models--acme--tiny-dit");
    assert_eq!(folder.path().unwrap(), repository.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    for path in [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        let fetched = fs::read(folder.path().unwrap().join(path)).unwrap();
        assert_eq!(fetched, fs::read(setup.root.join(path)).unwrap(), "{path}");
    }
    for path in NOT_NEEDED {
        assert!(!folder.contains(path), "{path}");
    }
    // As other clients leave it: contents under their names, linked to by the snapshot.
    let link = folder.path().unwrap().join(TRANSFORMER);
    assert_eq!(link.canonicalize().unwrap(), repository.join(TRANSFORMER_BLOB).canonicalize().unwrap());
    assert!(link.symlink_metadata().unwrap().is_symlink() || cfg!(not(unix)));
    let blobs = fs::read_dir(repository.join("blobs")).unwrap().flatten();
    assert_eq!(blobs.filter(|blob| blob.path().extension().is_some_and(|end| end == "part")).count(), 0);
    assert_complete(&folder);
}

#[test]
fn a_variant_is_fetched_and_read() {
    let mut setup = setup(Mood::Friendly);
    fs::rename(setup.root.join(TRANSFORMER), setup.root.join(TRANSFORMER_FP16)).unwrap();
    fs::remove_file(setup.root.join("vae/diffusion_pytorch_model.fp16.bin")).unwrap();
    // The only one there is, without being asked for; then beside another.
    let folder = resolve(ID, &setup.options).unwrap();
    assert!(folder.contains(TRANSFORMER_FP16));
    assert_complete(&folder);
    fs::write(setup.root.join(TRANSFORMER), "damaged").unwrap();
    setup.options = setup.options.clone().with_variant("fp16");
    for cache in ["home/hub", "other/hub"] {
        setup.options.cache_dir = setup.root.join("..").join(cache);
        let folder = resolve(ID, &setup.options).unwrap();
        assert!(!folder.contains(TRANSFORMER));
        assert_complete(&folder);
    }
    let local = resolve(setup.root.to_str().unwrap(), &setup.options).unwrap();
    assert_complete(&local);
    setup.options = setup.options.clone().with_variant("bf16");
    for model in [ID, setup.root.to_str().unwrap()] {
        let error = resolve(model, &setup.options).unwrap_err().to_string();
        assert!(error.contains("no component has weights of the variant `bf16`"), "{error}");
        assert!(error.starts_with(model), "{error}");
    }
}

#[test]
fn a_complete_snapshot_needs_no_hub() {
    let mut setup = setup(Mood::Friendly);
    resolve(ID, &setup.options).unwrap();
    let requests = setup.hub.seen().len();
    for (offline, revision) in [(false, "main"), (true, "main"), (true, COMMIT)] {
        setup.options.offline = offline;
        setup.options.revision = revision.to_string();
        assert_complete(&resolve(ID, &setup.options).unwrap());
    }
    assert_eq!(setup.hub.seen().len(), requests);
}

#[test]
fn only_what_is_missing_is_fetched() {
    let mut setup = setup(Mood::Friendly);
    let folder = resolve(ID, &setup.options).unwrap();
    let missing = "vae/config.json";
    fs::remove_file(folder.path().unwrap().join(missing)).unwrap();

    setup.options.offline = true;
    let error = error_of(&setup);
    assert!(error.contains("HF_HUB_OFFLINE is set"), "{error}");
    assert!(error.contains(&format!("lacks {missing} of {ID} (main)")), "{error}");

    setup.options.offline = false;
    let before = setup.hub.seen().len();
    assert_complete(&resolve(ID, &setup.options).unwrap());
    let seen = setup.hub.seen();
    assert!(seen[before..].iter().skip(1).all(|seen| seen.path.ends_with(missing)), "{seen:?}");

    // The content alone was deleted: its link leads nowhere.
    let link = folder.path().unwrap().join(missing);
    fs::remove_file(link.canonicalize().unwrap()).unwrap();
    assert_complete(&resolve(ID, &setup.options).unwrap());
    assert!(link.is_file());
}

#[test]
fn offline_with_an_empty_cache_says_so() {
    let mut setup = setup(Mood::Friendly);
    setup.options.offline = true;
    let error = error_of(&setup);
    assert!(error.contains("lacks the repository of acme/tiny-dit"), "{error}");
    assert!(setup.hub.seen().is_empty());
}

#[test]
fn the_token_is_sent_to_the_hub() {
    let mut setup = setup(Mood::Friendly);
    setup.options.token = Token::Valid("hf_secret".to_string());
    resolve(ID, &setup.options).unwrap();
    let seen = setup.hub.seen();
    let (storage, hub): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.path.starts_with("/storage/"));
    assert!(hub.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_secret")), "{hub:?}");
    assert!(!storage.is_empty() && storage.iter().all(|seen| seen.authorization.is_none()), "{storage:?}");
}

#[test]
fn a_token_that_cannot_be_sent_is_named_before_anybody_is_asked() {
    let mut setup = setup(Mood::Friendly);
    setup.options.token = Token::Unusable("the token in the file x is in UTF-16".to_string());
    assert!(error_of(&setup).contains("is in UTF-16"));
    assert!(setup.hub.seen().is_empty());
    // Nor does it matter where nobody has to be.
    assert_complete(&resolve(setup.root.to_str().unwrap(), &setup.options).unwrap());
}

#[test]
fn redirects_to_the_hub_itself_are_followed() {
    let mut setup = setup(Mood::Friendly);
    setup.options.token = Token::Valid("hf_secret".to_string());
    let folder = resolve(OLD_ID, &setup.options).unwrap();
    setup.assert_transformer(&folder);
    assert_complete(&folder);
    let seen = setup.hub.seen();
    let of_hub = seen.iter().filter(|seen| !seen.path.starts_with("/storage/"));
    assert!(of_hub.into_iter().all(|seen| seen.authorization.is_some()), "{seen:?}");
}

#[test]
fn whole_answers_to_ranged_requests_are_accepted() {
    for there in [0, 1000] {
        let setup = setup(Mood::SendsWholesAndBreaksOnce);
        let whole = fs::read(setup.root.join(TRANSFORMER)).unwrap();
        if there > 0 {
            setup.leave_part(&whole[..there]);
        }
        let folder = resolve(ID, &setup.options).unwrap();
        setup.assert_transformer(&folder);
        assert_complete(&folder);
    }
}

#[test]
fn empty_files_are_fetched() {
    let setup = setup(Mood::Friendly);
    let merges = "tokenizer/merges.txt";
    fs::create_dir(setup.root.join("tokenizer")).unwrap();
    fs::write(setup.root.join(merges), "").unwrap();
    let index = fs::read_to_string(setup.root.join("model_index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    index["tokenizer"] = serde_json::json!(["transformers", "CLIPTokenizer"]);
    fs::write(setup.root.join("model_index.json"), index.to_string()).unwrap();
    assert!(resolve(ID, &setup.options).unwrap().contains(merges));
}

#[test]
fn models_are_named_in_every_way() {
    let mut setup = setup(Mood::Friendly);
    let page = format!("{}/{ID}", setup.hub.endpoint);
    for model in [ID, "acme/tiny-dit/", "acme/tiny-dit@main", &page, &format!("{page}/tree/{COMMIT}")] {
        let folder = resolve(model, &setup.options).unwrap();
        assert_eq!(folder.id(), ID, "{model}");
        assert_complete(&folder);
    }
    let error = resolve("acme/tiny-dit@fp16", &setup.options).unwrap_err().to_string();
    assert!(error.contains("not at revision `fp16`"), "{error}");
    setup.options.revision = "fp16".to_string();
    let error = resolve("acme/tiny-dit@main", &setup.options).unwrap_err().to_string();
    assert!(error.contains("names the revision `main`, and --revision another, `fp16`"), "{error}");
    let cached = setup.options.cache_dir.join("models--acme--tiny-dit");
    let error = resolve(cached.to_str().unwrap(), &setup.options).unwrap_err().to_string();
    assert!(error.contains("give `acme/tiny-dit`, or one of its snapshots"), "{error}");
}

/// What was asked for from the middle on.
fn ranges(setup: &Setup) -> Vec<String> {
    let ranges = setup.hub.seen().into_iter().filter(|seen| seen.path.starts_with("/storage/"));
    ranges.filter_map(|seen| seen.range).filter(|range| !range.starts_with("bytes=0-")).collect()
}

#[test]
fn a_broken_download_is_resumed() {
    let setup = setup(Mood::BreaksOnce);
    let folder = resolve(ID, &setup.options).unwrap();
    setup.assert_transformer(&folder);
    assert_complete(&folder);
    let whole = setup.root.join(TRANSFORMER).metadata().unwrap().len();
    assert_eq!(ranges(&setup), [format!("bytes={}-", whole / 2)]);
}

#[test]
fn the_next_start_continues_where_the_last_one_broke_off() {
    let mut setup = setup(Mood::BreaksForGood);
    let error = error_of(&setup);
    assert!(error.contains(&format!("answers 503 for {TRANSFORMER} of {ID}")), "{error}");
    let there = setup.part().metadata().unwrap().len();
    assert!(there > 0);
    setup.options.offline = true;
    assert!(error_of(&setup).contains("lacks the repository"), "the revision stands for nothing yet");

    setup.options.offline = false;
    setup.hub.set_mood(Mood::Friendly);
    let before = ranges(&setup).len();
    setup.assert_transformer(&resolve(ID, &setup.options).unwrap());
    assert_eq!(ranges(&setup)[before..], [format!("bytes={there}-")]);
}

#[test]
fn what_an_earlier_start_left_survives_a_hub_that_stumbles() {
    let setup = setup(Mood::StumblesTwice);
    let whole = fs::read(setup.root.join(TRANSFORMER)).unwrap();
    let there = whole.len() / 4;
    setup.leave_part(&whole[..there]);
    setup.assert_transformer(&resolve(ID, &setup.options).unwrap());
    let half = there + (whole.len() - there) / 2;
    assert_eq!(ranges(&setup), [there, there, half].map(|start| format!("bytes={start}-")));
}

#[test]
fn what_is_no_beginning_of_the_file_is_fetched_again() {
    for surplus in [0, 1, 1_000_000] {
        let setup = setup(Mood::Friendly);
        let whole = setup.root.join(TRANSFORMER).metadata().unwrap().len() as usize;
        setup.leave_part(&vec![7; whole + surplus]);
        setup.assert_transformer(&resolve(ID, &setup.options).unwrap());
    }
}

#[test]
fn the_download_of_another_process_is_waited_for() {
    let setup = setup(Mood::Friendly);
    setup.leave_part(b"");
    let lock = fs::File::create(setup.part().with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let options = setup.options.clone().with_progress(Told(Arc::clone(&told)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| resolve(ID, &options));
        // All else is there by then.
        while !setup.hub.seen().iter().any(|seen| seen.path.ends_with(TRANSFORMER)) {
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        assert!(told.lock().unwrap().iter().all(|told| told.0 != TRANSFORMER));
        lock.unlock().unwrap();
        setup.assert_transformer(&waiting.join().unwrap().unwrap());
    });
}

/// Records the progress that is reported.
struct Told(Arc<Mutex<Vec<(String, u64, u64)>>>);

impl FetchProgress for Told {
    fn fetched(&self, file: &str, done_bytes: u64, total_bytes: u64) {
        self.0.lock().unwrap().push((file.to_owned(), done_bytes, total_bytes));
    }
}

#[test]
fn progress_is_told_from_beginning_to_end() {
    let mut setup = setup(Mood::Friendly);
    let told = Arc::new(Mutex::new(Vec::new()));
    setup.options = setup.options.clone().with_progress(Told(Arc::clone(&told)));
    resolve(ID, &setup.options).unwrap();
    let bytes = setup.root.join(TRANSFORMER).metadata().unwrap().len();
    let told: Vec<_> =
        told.lock().unwrap().iter().filter(|told| told.0 == TRANSFORMER).map(|told| (told.1, told.2)).collect();
    assert_eq!((told[0], *told.last().unwrap()), ((0, bytes), (bytes, bytes)));
    assert!(told.is_sorted());
}

/// The head of the stand-in's answers is shorter.
const AFTER_THE_HEAD: usize = 200;

#[test]
fn a_hub_that_does_not_get_on_is_given_up() {
    for mood in [
        Mood::IsSilent,
        Mood::StallsAfter(0),
        Mood::StallsAfter(20),
        Mood::StallsAfter(AFTER_THE_HEAD),
        Mood::DripsAfter(20),
        Mood::DripsAfter(AFTER_THE_HEAD),
    ] {
        let mut setup = setup(mood);
        setup.options.patience = Duration::from_millis(200);
        let error = error_of(&setup);
        assert!(error.starts_with("cannot reach http://127.0.0.1"), "{error}");
    }
}

#[test]
fn the_same_beginning_again_and_again_is_given_up() {
    let setup = setup(Mood::BeginsForEver);
    let error = error_of(&setup);
    assert!(error.contains("for model_index.json of acme/tiny-dit"), "{error}");
    // A few attempts for the first file, a request or two each.
    assert!(setup.hub.seen().len() < 12, "{}", setup.hub.seen().len());
}

#[test]
fn names_of_the_hub_do_not_become_paths() {
    for name in ["..", "../..", "../../outside", "/tmp/outside", "", "a/b", "a\\b", "x.part"] {
        for mood in [Mood::NamesCommit(name), Mood::NamesContents(name)] {
            let setup = setup(mood);
            let home = setup.options.cache_dir.parent().unwrap().to_path_buf();
            let error = error_of(&setup);
            assert!(error.contains("which is none") || error.contains("no `ETag` that can be a file name"), "{error}");
            // Nothing but empty folders, if any.
            let found = files_below(&home);
            assert!(found.is_empty(), "{name}: {found:?}");
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn small_files_are_small() {
    for (bytes, expected) in [
        (u64::MAX, "the file has more than 4194304 bytes"),
        (4_194_305, "the file has more than 4194304 bytes"),
        (1, "it sends more than the file is said to have"),
    ] {
        let setup = setup(Mood::SendsZeros(bytes));
        let error = error_of(&setup);
        assert!(error.contains(expected), "{error}");
        let kept: u64 = files_below(&setup.options.cache_dir).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(kept <= 1, "{kept} bytes");
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (status, expected) in [
        (404, "check the spelling and --revision"),
        (401, "set HF_TOKEN"),
        (403, "accept its licence"),
        (429, "limits the rate"),
        (500, "answers 500 for acme/tiny-dit"),
    ] {
        let mut setup = setup(Mood::Refuses(status));
        let error = error_of(&setup);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(ID), "{error}");
        setup.options.token = Token::Valid("hf_old".to_string());
        let error = error_of(&setup);
        assert!(status != 401 || error.contains("is not valid"), "{error}");
        assert!(!error.contains("hf_old"), "{error}");
    }
}

#[test]
fn gated_models_say_what_to_do() {
    for (status, code, token, expected) in [
        (401, "GatedRepo", None, "the model is gated; accept its licence at http://127.0.0.1"),
        (403, "GatedRepo", Some("hf_other"), "the account of the token in HF_TOKEN has no access"),
        (403, "DisabledRepo", None, "has disabled acme/tiny-dit"),
        (404, "EntryNotFound", None, "has no model_index.json of acme/tiny-dit at revision `main`"),
    ] {
        let mut setup = setup(Mood::RefusesFiles(status, code));
        setup.options.token = token.map_or(Token::Absent, |token: &str| Token::Valid(token.to_owned()));
        let error = error_of(&setup);
        assert!(error.contains(expected) && error.contains(&status.to_string()), "{error}");
    }
    let setup = setup(Mood::Friendly);
    let error = resolve("acme/other", &setup.options).unwrap_err().to_string();
    assert!(error.contains("has no acme/other (404), or it is private"), "{error}");
}

#[test]
fn an_unknown_revision_is_named() {
    let mut setup = setup(Mood::Friendly);
    setup.options = setup.options.clone().with_revision("fp16");
    assert!(error_of(&setup).contains("has acme/tiny-dit, but not at revision `fp16` (404); check --revision"));
    setup.options.revision = "../main".to_string();
    assert!(error_of(&setup).contains("cannot be a revision"));
}

#[test]
fn an_incomplete_repository_is_named() {
    let setup = setup(Mood::Friendly);
    fs::remove_file(setup.root.join(TRANSFORMER)).unwrap();
    fs::remove_file(setup.root.join(TRANSFORMER_FP16)).unwrap();
    let error = error_of(&setup);
    assert!(error.starts_with("acme/tiny-dit: there are no weights for `transformer`"), "{error}");
    fs::remove_file(setup.root.join("model_index.json")).unwrap();
    // A new cache: the old one has the file by now.
    let mut options = setup.options.clone();
    options.cache_dir = options.cache_dir.join("other");
    let error = resolve(ID, &options).unwrap_err().to_string();
    assert!(error.contains("acme/tiny-dit has no model_index.json; it is no complete model"), "{error}");
    for (file, expected) in [
        (
            "flux1-dev-Q4_0.gguf",
            "such as flux1-dev-Q4_0.gguf: download one and give it as --transformer or --text-encoder",
        ),
        ("pytorch_lora_weights.safetensors", "it holds pytorch_lora_weights.safetensors, a LoRA"),
    ] {
        fs::write(setup.root.join(file), "").unwrap();
        let error = resolve(ID, &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_unreachable_hub_is_named() {
    let mut setup = setup(Mood::Friendly);
    // Nothing listens on the discard port of this machine.
    setup.options.endpoint = "http://127.0.0.1:9".to_string();
    let error = error_of(&setup);
    assert!(error.starts_with("cannot reach http://127.0.0.1:9 for acme/tiny-dit"), "{error}");
}

#[test]
fn local_folders_and_the_embedded_model_need_no_hub() {
    let setup = setup(Mood::Friendly);
    let local = resolve(setup.root.to_str().unwrap(), &setup.options).unwrap();
    assert_eq!(local.id(), "repository");
    assert_eq!(resolve("emoji-dit", &setup.options).unwrap().path(), None);
    assert!(setup.hub.seen().is_empty());
}

#[test]
fn other_names_are_refused() {
    let setup = setup(Mood::Friendly);
    for name in ["", "dit", "./missing", "/missing/dit", "a/b/c", "a/..", "a/b c", "../b", "-a/b"] {
        let error = resolve(name, &setup.options).unwrap_err().to_string();
        assert!(error.contains("is named `org/name`"), "{name}: {error}");
    }
    let error = resolve("https://civitai.com/models/4384", &setup.options).unwrap_err().to_string();
    assert!(error.contains("`https://civitai.com/models/4384` is no model: it is an address"), "{error}");
    assert!(setup.hub.seen().is_empty());
}
