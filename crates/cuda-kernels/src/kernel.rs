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
    attention_f32 {
        AttentionF32Values32 = attention_f32_32,
        AttentionF32Values64 = attention_f32_64,
        AttentionF32Values80 = attention_f32_80,
        AttentionF32Values128 = attention_f32_128,
    }
    attention_f16 {
        AttentionF16Size32 = attention_f16_32_1_4_64_2,
        AttentionF16Size64 = attention_f16_64_2_4_64_2,
        AttentionF16Size64Short = attention_f16_64_1_4_64_2,
        AttentionF16Size80 = attention_f16_80_2_4_64_2,
        AttentionF16Size80Short = attention_f16_80_1_4_64_2,
        AttentionF16Size96 = attention_f16_96_2_4_64_2,
        AttentionF16Size96Short = attention_f16_96_1_4_64_2,
        AttentionF16Size128 = attention_f16_128_2_4_64_2,
        AttentionF16Size128Short = attention_f16_128_1_4_64_2,
        AttentionF16Size160 = attention_f16_160_1_4_32_2,
        AttentionF16Size256 = attention_f16_256_1_4_32_1,
        AttentionF16Size512 = attention_f16_512_1_4_32_1,
        AttentionF16Size512Short = attention_f16_512_1_2_32_1,
    }
    attention_bf16 {
        AttentionBf16Size32 = attention_bf16_32_1_4_64_2,
        AttentionBf16Size64 = attention_bf16_64_2_4_64_2,
        AttentionBf16Size64Short = attention_bf16_64_1_4_64_2,
        AttentionBf16Size80 = attention_bf16_80_2_4_64_2,
        AttentionBf16Size80Short = attention_bf16_80_1_4_64_2,
        AttentionBf16Size96 = attention_bf16_96_2_4_64_2,
        AttentionBf16Size96Short = attention_bf16_96_1_4_64_2,
        AttentionBf16Size128 = attention_bf16_128_2_4_64_2,
        AttentionBf16Size128Short = attention_bf16_128_1_4_64_2,
        AttentionBf16Size160 = attention_bf16_160_1_4_32_2,
        AttentionBf16Size256 = attention_bf16_256_1_4_32_1,
        AttentionBf16Size512 = attention_bf16_512_1_4_32_1,
        AttentionBf16Size512Short = attention_bf16_512_1_2_32_1,
    }
    combination {
        CombineF32 = combine_f32,
        CombineF16 = combine_f16,
        CombineBf16 = combine_bf16,
        CombineAnyF32 = combine_any_f32,
        CombineAnyF16 = combine_any_f16,
        CombineAnyBf16 = combine_any_bf16,
    }
    epilogue {
        EpilogueF32 = epilogue_f32,
        EpilogueF16 = epilogue_f16,
        EpilogueBf16 = epilogue_bf16,
        EpilogueAnyF32 = epilogue_any_f32,
        EpilogueAnyF16 = epilogue_any_f16,
        EpilogueAnyBf16 = epilogue_any_bf16,
    }
    float8 {
        WidenF32 = widen_f32,
        WidenF16 = widen_f16,
        WidenBf16 = widen_bf16,
        WidenAnyF32 = widen_any_f32,
        WidenAnyF16 = widen_any_f16,
        WidenAnyBf16 = widen_any_bf16,
    }
    group_norm {
        GroupMomentsF32 = group_moments_f32,
        GroupMomentsF16 = group_moments_f16,
        GroupMomentsBf16 = group_moments_bf16,
        GroupMomentsAnyF32 = group_moments_any_f32,
        GroupMomentsAnyF16 = group_moments_any_f16,
        GroupMomentsAnyBf16 = group_moments_any_bf16,
        ScaleShiftF32 = scale_shift_f32,
        ScaleShiftF16 = scale_shift_f16,
        ScaleShiftBf16 = scale_shift_bf16,
        ScaleShiftAnyF32 = scale_shift_any_f32,
        ScaleShiftAnyF16 = scale_shift_any_f16,
        ScaleShiftAnyBf16 = scale_shift_any_bf16,
    }
    layer_norm {
        LayerNormF32 = layer_norm_f32,
        LayerNormF16 = layer_norm_f16,
        LayerNormBf16 = layer_norm_bf16,
        LayerNormAnyF32 = layer_norm_any_f32,
        LayerNormAnyF16 = layer_norm_any_f16,
        LayerNormAnyBf16 = layer_norm_any_bf16,
    }
    norm_and_turn {
        NormAndTurnF32 = norm_and_turn_f32,
        NormAndTurnF16 = norm_and_turn_f16,
        NormAndTurnBf16 = norm_and_turn_bf16,
        NormAndTurnAnyF32 = norm_and_turn_any_f32,
        NormAndTurnAnyF16 = norm_and_turn_any_f16,
        NormAndTurnAnyBf16 = norm_and_turn_any_bf16,
        RmsNormF32 = rms_norm_f32,
        RmsNormF16 = rms_norm_f16,
        RmsNormBf16 = rms_norm_bf16,
    }
    reduction {
        ReduceF32 = reduce_f32,
        ReduceF16 = reduce_f16,
        ReduceBf16 = reduce_bf16,
    }
    unfold {
        UnfoldF32 = unfold_f32,
        UnfoldF16 = unfold_f16,
        UnfoldBf16 = unfold_bf16,
        UnfoldAnyF32 = unfold_any_f32,
        UnfoldAnyF16 = unfold_any_f16,
        UnfoldAnyBf16 = unfold_any_bf16,
    }
}
