//! Where a model comes from, and loading it.

mod download_bars;

use std::io::IsTerminal;

use afterimage_runner::{
    DeviceSpec, GivenFile, HubOptions, LoadOptions, ModelFolder, Pipeline, Replicas, RunnerError, existing, resolve,
};

use download_bars::DownloadBars;

/// Which model, and how it is loaded.
#[derive(Debug, Clone)]
pub(crate) struct ModelSource {
    /// Folder, file or hub id; `None` for the model inside this program.
    pub(crate) model: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) variant: Option<String>,
    /// Files that have weights of components instead of the folder.
    pub(crate) files: Vec<GivenFile>,
    /// What has all else of a model that is one file.
    pub(crate) config_from: Option<String>,
    pub(crate) options: LoadOptions,
}

impl ModelSource {
    /// Whether the scheduler of default requests is the user's choice.
    pub(crate) fn chooses_scheduler(&self) -> bool {
        self.options.scheduler.is_some()
    }

    /// Finds and loads the model. Blocks.
    pub(crate) fn load(&self, device: DeviceSpec) -> Result<Pipeline, RunnerError> {
        // A device that is not there is no reason to download anything.
        let places = self.options.open(&[device])?;
        Pipeline::load_onto(&self.folder()?, &self.options, &places[0])
    }

    /// Finds the model and loads it onto every device.
    pub(crate) fn load_onto(&self, devices: &[DeviceSpec]) -> Result<Replicas, RunnerError> {
        let places = self.options.open(devices)?;
        Replicas::load_onto(&self.folder()?, &self.options, &places)
    }

    fn folder(&self) -> Result<ModelFolder, RunnerError> {
        let Some(model) = &self.model else { return Ok(ModelFolder::embedded()) };
        let hub = HubOptions::from_env();
        let hub = match &self.revision {
            Some(revision) => hub.with_revision(revision),
            None => hub,
        };
        let hub = match &self.variant {
            Some(variant) => hub.with_variant(variant),
            None => hub,
        };
        // Bars for people, lines for logs.
        let hub = if std::io::stderr().is_terminal() { hub.with_progress(DownloadBars::default()) } else { hub };
        let there = |file: &GivenFile| file.clone().map_path(|path| path.to_str().and_then(existing).unwrap_or(path));
        let files = self.files.iter().map(there).collect();
        Ok(resolve(model, &hub.with_files(files).with_config_from(self.config_from.clone()))?)
    }
}
