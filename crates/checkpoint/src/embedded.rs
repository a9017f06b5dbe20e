//! The default model, part of the program: a small class-conditional DiT that draws emoji.
//!
//! It makes the server start and answer without a download or a network.

/// The id under which the embedded model is served.
pub(crate) const ID: &str = "emoji-dit";

/// A file of the embedded model folder.
pub(crate) struct EmbeddedFile {
    /// Path inside the folder.
    pub path: &'static str,
    /// Content.
    pub bytes: &'static [u8],
}

macro_rules! embedded_files {
    ($($path:literal),* $(,)?) => {
        [$(EmbeddedFile {
            path: $path,
            bytes: include_bytes!(concat!("../../../models/emoji-dit/", $path)),
        }),*]
    };
}

static FILES: [EmbeddedFile; 8] = embedded_files![
    "cache_fit.json",
    "cache_profile.json",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The file at `path` of the embedded model folder.
pub(crate) fn file(path: &str) -> Option<&'static EmbeddedFile> {
    FILES.iter().find(|file| file.path == path)
}
