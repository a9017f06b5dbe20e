//! One model on the devices of an engine: a copy of the weights per device, a worker per mention.

use std::sync::Arc;

use afterimage_checkpoint::ModelFolder;

use crate::error::RunnerError;
use crate::model_info::ModelInfo;
use crate::pipeline::{DeviceSpec, LoadOptions, Pipeline};
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
        if devices.is_empty() {
            return Err(RunnerError::Options("an engine needs at least one device".to_owned()));
        }
        let mut workers: Vec<(DeviceSpec, Arc<Pipeline>)> = Vec::with_capacity(devices.len());
        for device in devices {
            let pipeline = match workers.iter().find(|(loaded, _)| loaded == device) {
                Some((_, pipeline)) => Arc::clone(pipeline),
                None => Arc::new(Pipeline::load(folder, &LoadOptions { device: *device, ..options.clone() })?),
            };
            workers.push((*device, pipeline));
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
