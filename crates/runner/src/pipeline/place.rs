//! Where a model computes: its devices, open before anything of it is looked for, and the precision there.

use afterimage_checkpoint::Quantization;
use afterimage_diffusion::DiffusionError;
use candle_core::{DType, Device};

use super::load::of_options;
use super::{DeviceSpec, LoadOptions};
use crate::error::RunnerError;

/// The open devices of one copy of a model.
#[derive(Debug, Clone)]
pub struct Place {
    /// That of the transformer and the VAE.
    pub(crate) spec: DeviceSpec,
    pub(super) device: Device,
    pub(super) dtype: DType,
    pub(super) encoder_device: Device,
    pub(super) encoder_dtype: DType,
}

impl LoadOptions {
    /// Opens a device for every worker, and that of the text encoders, if the model can be loaded there as the options say.
    /// A GPU that is not there is found before a model is downloaded or loaded onto those that are.
    ///
    /// # Errors
    /// The option that is at fault.
    pub fn open(&self, devices: &[DeviceSpec]) -> Result<Vec<Place>, RunnerError> {
        devices.iter().try_for_each(|device| check_quantization(self.quantization, *device))?;
        let mut places: Vec<Place> = Vec::with_capacity(devices.len());
        for spec in devices {
            let place = match places.iter().find(|place| place.spec == *spec) {
                Some(open) => open.clone(),
                None => self.open_one(*spec)?,
            };
            places.push(place);
        }
        Ok(places)
    }

    fn open_one(&self, spec: DeviceSpec) -> Result<Place, RunnerError> {
        let device = spec.open("device")?;
        let dtype = self.precision.dtype(&device).map_err(|error| of_options(error, self))?;
        let (encoder_device, encoder_dtype) = match self.text_encoder_device {
            Some(own) if own != spec => {
                let device = own.open("text_encoder_device")?;
                let dtype = self.precision.dtype(&device).map_err(|error| of_encoders(own, error))?;
                (device, dtype)
            }
            _ => (device.clone(), dtype),
        };
        Ok(Place { spec, device, dtype, encoder_device, encoder_dtype })
    }
}

/// Quantised matrices have kernels on the CPU only.
fn check_quantization(quantization: Quantization, device: DeviceSpec) -> Result<(), RunnerError> {
    if quantization == Quantization::None || device == DeviceSpec::Cpu {
        return Ok(());
    }
    let message = format!(
        "it is int8, which is for the CPU, and the model is loaded onto {device}; leave it out, and take weights in fp8 or GGUF to \
         save memory"
    );
    Err(RunnerError::LoadOption { option: "quantize", message })
}

/// The precision suits the transformer.
fn of_encoders(device: DeviceSpec, error: DiffusionError) -> RunnerError {
    match error {
        DiffusionError::Option { option, reason } => {
            let message = format!("it is {device}, and --{option} {reason}");
            RunnerError::LoadOption { option: "text_encoder_device", message }
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use afterimage_diffusion::Precision;

    use super::*;

    fn refused(options: &LoadOptions, devices: &[DeviceSpec]) -> (&'static str, String) {
        match options.open(devices) {
            Err(RunnerError::LoadOption { option, message }) => (option, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn half_precision_on_a_cpu_names_its_option() {
        let options = LoadOptions { precision: Precision::F16, ..LoadOptions::default() };
        let (option, message) = refused(&options, &[DeviceSpec::Cpu]);
        assert_eq!(option, "dtype");
        assert_eq!(message, "it is f16, which cannot be computed on a CPU; take f32 or bf16");
        let error = Precision::F16.dtype(&Device::Cpu).unwrap_err();
        let RunnerError::LoadOption { option, message } = of_encoders(DeviceSpec::Cpu, error) else { unreachable!() };
        assert_eq!(option, "text_encoder_device");
        assert!(message.starts_with("it is cpu, and --dtype is f16, which"), "{message}");
    }

    #[test]
    fn quantisation_is_checked_before_any_device_is_opened() {
        let options = LoadOptions { quantization: Quantization::Int8, ..LoadOptions::default() };
        assert_eq!(refused(&options, &[DeviceSpec::Cpu, DeviceSpec::Cuda(63)]).0, "quantize");
    }

    #[test]
    fn a_device_that_is_not_there_is_told_from_that_of_text_encoders() {
        let gpu = DeviceSpec::Cuda(63);
        let (option, message) = refused(&LoadOptions::default(), &[DeviceSpec::Cpu, gpu]);
        assert_eq!(option, "device");
        assert!(message.starts_with("it is cuda:63, which cannot be used: "), "{message}");
        let options = LoadOptions { text_encoder_device: Some(gpu), ..LoadOptions::default() };
        assert_eq!(refused(&options, &[DeviceSpec::Cpu]).0, "text_encoder_device");
    }

    #[test]
    fn workers_of_one_device_share_it() {
        let places = LoadOptions::default().open(&[DeviceSpec::Cpu; 2]).unwrap();
        assert_eq!(places.iter().map(|place| place.spec).collect::<Vec<_>>(), [DeviceSpec::Cpu; 2]);
    }
}
