//! The list of kernels.

/// A kernel as C++: it takes its parameters and their size.
#[cfg(feature = "emulation")]
pub(crate) type EmulatedKernel = unsafe extern "C" fn(*const std::ffi::c_void, usize);

/// Lists kernels by the file they are in: their names here and there.
macro_rules! kernels {
    ($($family:ident { $($kernel:ident = $name:ident),* $(,)? })*) => {
        /// Kernels of one file of `cuda/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types, missing_docs, reason = "the names of files")]
        pub enum Family { $($family),* }

        impl Family {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$family),*];

            /// The kernels, compiled.
            #[cfg(feature = "cuda")]
            pub(crate) fn fatbin(self) -> &'static [u8] {
                match self {
                    $(Self::$family => {
                        include_bytes!(concat!(env!("OUT_DIR"), "/", stringify!($family), ".fatbin"))
                    })*
                }
            }
        }

        /// A function that can be launched.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "`cuda/` says what each does")]
        pub enum Kernel { $($($kernel),*),* }

        impl Kernel {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$($(Self::$kernel),*),*];

            /// As in `cuda/`.
            pub fn name(self) -> &'static str {
                match self { $($(Self::$kernel => stringify!($name)),*),* }
            }

            /// The file it is in.
            pub fn family(self) -> Family {
                match self { $($(Self::$kernel => Family::$family),*),* }
            }

            /// Compiled for the emulation.
            #[cfg(feature = "emulation")]
            pub(crate) fn emulated(self) -> EmulatedKernel {
                use std::ffi::c_void;

                unsafe extern "C" {
                    $($(fn $name(parameters: *const c_void, bytes: usize);)*)*
                }
                match self { $($(Self::$kernel => $name),*),* }
            }
        }
    };
}

kernels! {
    layer_norm {
        LayerNormF32 = layer_norm_f32,
        LayerNormF16 = layer_norm_f16,
        LayerNormBf16 = layer_norm_bf16,
        LayerNormAnyF32 = layer_norm_any_f32,
        LayerNormAnyF16 = layer_norm_any_f16,
        LayerNormAnyBf16 = layer_norm_any_bf16,
    }
}
