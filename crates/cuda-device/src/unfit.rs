//! Drivers and GPUs that this program was not built for.

/// What CUDA's libraries and the kernels in this program were made by; `1000 * major + 10 * minor`, as drivers count.
const CUDA: i32 = 13_000;
/// The oldest compute capability that kernels are built for.
const CAPABILITY: (i32, i32) = (8, 0);

/// A driver or a GPU that cannot be used, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No GPU at all.
    #[error(
        "the driver finds no GPU; `nvidia-smi -L` lists those of the machine, and a container or CUDA_VISIBLE_DEVICES may \
         hide them"
    )]
    NoGpu,
    /// No GPU with this number.
    #[error("there is no such GPU: the driver has {}", numbered(.0))]
    NoSuchGpu(
        /// How many there are.
        usize,
    ),
    /// A driver for an earlier CUDA; its version as drivers count.
    #[error("the driver is for CUDA {}.{}, and 13.0 is needed: version 580 or newer", .0 / 1000, .0 % 1000 / 10)]
    OldDriver(i32),
    /// A GPU for which there are no kernels.
    #[error("it has compute capability {0}.{1}, and 8.0 is needed: A100, RTX 30 or newer")]
    OldGpu(i32, i32),
}

/// So many GPUs as a command line names them.
fn numbered(gpus: &usize) -> String {
    match gpus.saturating_sub(1) {
        0 => "cuda:0 alone".to_owned(),
        last => format!("cuda:0 to cuda:{last}"),
    }
}

/// Whether a driver is new enough.
pub(crate) fn check_driver(version: i32) -> Result<(), Unfit> {
    if version < CUDA { Err(Unfit::OldDriver(version)) } else { Ok(()) }
}

/// Whether there is a GPU with this number among so many.
pub(crate) fn check_number(ordinal: usize, gpus: usize) -> Result<(), Unfit> {
    match gpus {
        0 => Err(Unfit::NoGpu),
        _ if ordinal >= gpus => Err(Unfit::NoSuchGpu(gpus)),
        _ => Ok(()),
    }
}

/// Whether there are kernels for a GPU of this compute capability.
pub(crate) fn check_capability(major: i32, minor: i32) -> Result<(), Unfit> {
    if (major, minor) < CAPABILITY { Err(Unfit::OldGpu(major, minor)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(checked: Result<(), Unfit>) -> String {
        checked.unwrap_err().to_string()
    }

    #[test]
    fn drivers_are_of_cuda_13_or_newer() {
        assert_eq!((check_driver(13_000), check_driver(13_020), check_driver(14_000)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(said(check_driver(12_090)), "the driver is for CUDA 12.9, and 13.0 is needed: version 580 or newer");
    }

    #[test]
    fn a_number_without_a_gpu_is_told_those_that_there_are() {
        assert_eq!((check_number(0, 1), check_number(1, 2)), (Ok(()), Ok(())));
        assert_eq!(said(check_number(1, 1)), "there is no such GPU: the driver has cuda:0 alone");
        assert_eq!(said(check_number(99, 4)), "there is no such GPU: the driver has cuda:0 to cuda:3");
        assert!(said(check_number(0, 0)).starts_with("the driver finds no GPU; `nvidia-smi -L`"));
    }

    #[test]
    fn gpus_have_kernels_from_the_first_capability_on() {
        assert_eq!((check_capability(8, 0), check_capability(8, 6), check_capability(12, 0)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(
            said(check_capability(7, 5)),
            "it has compute capability 7.5, and 8.0 is needed: A100, RTX 30 or newer"
        );
    }
}
