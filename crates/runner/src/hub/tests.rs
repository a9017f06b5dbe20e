use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device};
use tempfile::TempDir;

use super::stand_in::{COMMIT, Mood, StandInHub};
use super::*;
use crate::{Precision, RandomModelKind, write_random_model};

const ID: &str = "acme/tiny-dit";

/// A hub with a tiny model, and an empty cache.
struct Setup {
    hub: StandInHub,
    options: HubOptions,
    _folder: TempDir,
    root: PathBuf,
}

fn setup(mood: Mood) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    write_random_model(RandomModelKind::TinyDit, &root, 0, Precision::F32).unwrap();
    fs::write(root.join("README.md"), "not needed").unwrap();
    fs::write(root.join("vae/diffusion_pytorch_model.bin"), "not needed").unwrap();
    let hub = StandInHub::start(ID, &root, mood);
    let options = HubOptions {
        endpoint: hub.endpoint.clone(),
        cache_dir: folder.path().join("home/hub"),
        token: None,
        offline: false,
        revision: "main".to_string(),
        without_transformer: false,
    };
    Setup { hub, options, _folder: folder, root }
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
    assert!(!folder.contains("README.md"));
    assert!(!folder.contains("vae/diffusion_pytorch_model.bin"));
    assert_complete(&folder);
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
    setup.options.token = Some("hf_secret".to_string());
    resolve(ID, &setup.options).unwrap();
    let expected = Some("Bearer hf_secret");
    assert_eq!(setup.hub.seen()[0].authorization.as_deref(), expected);
}

#[test]
fn a_broken_download_is_resumed() {
    let setup = setup(Mood::BreaksOnce);
    assert_complete(&resolve(ID, &setup.options).unwrap());
    let resumed = |range: &String| !range.starts_with("bytes=0-");
    assert!(setup.hub.seen().iter().any(|seen| seen.range.as_ref().is_some_and(resumed)));
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
        setup.options.token = Some("hf_old".to_string());
        let error = error_of(&setup);
        assert!(status != 401 || error.contains("is not valid"), "{error}");
        assert!(!error.contains("hf_old"), "{error}");
    }
}

#[test]
fn an_unknown_revision_is_named() {
    let mut setup = setup(Mood::Friendly);
    setup.options = setup.options.clone().with_revision("fp16");
    assert!(error_of(&setup).contains("at revision `fp16` (404)"));
    setup.options.revision = "../main".to_string();
    assert!(error_of(&setup).contains("cannot be a revision"));
}

#[test]
fn an_incomplete_repository_is_named() {
    let setup = setup(Mood::Friendly);
    fs::remove_file(setup.root.join("transformer/diffusion_pytorch_model.safetensors")).unwrap();
    let error = error_of(&setup);
    assert!(error.starts_with("acme/tiny-dit: there are no weights for `transformer`"), "{error}");
    fs::remove_file(setup.root.join("model_index.json")).unwrap();
    // A new cache: the old one has the file by now.
    let mut options = setup.options.clone();
    options.cache_dir = options.cache_dir.join("other");
    let error = resolve(ID, &options).unwrap_err().to_string();
    assert!(error.contains("acme/tiny-dit has no model_index.json"), "{error}");
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
    assert!(is_hub_id("stabilityai/stable-diffusion-3.5-medium"));
    assert!(is_hub_id("PixArt-alpha/PixArt-Sigma-XL-2-512-MS"));
}
