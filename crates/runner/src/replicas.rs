//! One model on the devices of an engine: a copy of the weights per device, a worker per mention.

use std::sync::Arc;

use afterimage_checkpoint::ModelFolder;

use crate::error::RunnerError;
use crate::memory::LoadedDevice;
use crate::model_info::ModelInfo;
use crate::pipeline::{DeviceSpec, LoadOptions, Pipeline, Place};
use crate::request::Size;

/// A model loaded onto every device it is to run on.
pub struct Replicas {
    /// One per worker, at least one; workers on the same device share the pipeline.
    workers: Vec<(DeviceSpec, Arc<Pipeline>)>,
}

impl Replicas {
    /// Loads a model once onto each of `devices`; a device named twice gets two workers.
    ///
    /// # Errors
    /// If there is no device, one cannot be opened, or the folder holds no model this crate can run.
    pub fn load(folder: &ModelFolder, options: &LoadOptions, devices: &[DeviceSpec]) -> Result<Self, RunnerError> {
        Self::load_onto(folder, options, &options.open(devices)?)
    }

    /// The same onto devices that the options have [opened](LoadOptions::open).
    ///
    /// # Errors
    /// If there is none, or the folder holds no model this crate can run.
    pub fn load_onto(folder: &ModelFolder, options: &LoadOptions, places: &[Place]) -> Result<Self, RunnerError> {
        if places.is_empty() {
            return Err(RunnerError::Options("an engine needs at least one device".to_owned()));
        }
        let mut workers: Vec<(DeviceSpec, Arc<Pipeline>)> = Vec::with_capacity(places.len());
        for place in places {
            let pipeline = match workers.iter().find(|(loaded, _)| *loaded == place.spec) {
                Some((_, pipeline)) => Arc::clone(pipeline),
                None => Arc::new(Pipeline::load_onto(folder, options, place)?),
            };
            workers.push((place.spec, pipeline));
        }
        Ok(Self { workers })
    }

    /// Sizes served, the default first.
    pub fn buckets(&self) -> &[Size] {
        &self.info().buckets
    }

    /// What the model offers.
    pub fn info(&self) -> &ModelInfo {
        self.workers[0].1.info()
    }

    /// Every device once, with the number of its workers and its memory, or as much of that as may be used; those whose system
    /// does not say what it has are left out.
    pub(crate) fn memory(&self, may_use: Option<u64>) -> Result<Vec<LoadedDevice>, RunnerError> {
        let mut devices: Vec<LoadedDevice> = Vec::new();
        for (device, pipeline) in &self.workers {
            let device = device.to_string();
            if let Some(known) = devices.iter_mut().find(|known| known.device == device) {
                known.workers += 1;
            } else if let Some(capacity) = pipeline.capacity(may_use)? {
                devices.push(LoadedDevice { device, workers: 1, capacity, footprint: pipeline.footprint() });
            }
        }
        Ok(devices)
    }

    /// Device and pipeline of every worker.
    pub(crate) fn workers(&self) -> &[(DeviceSpec, Arc<Pipeline>)] {
        &self.workers
    }
}

/// One worker on the pipeline's device.
impl From<Pipeline> for Replicas {
    fn from(pipeline: Pipeline) -> Self {
        Self { workers: vec![(pipeline.device_spec(), Arc::new(pipeline))] }
    }
}
