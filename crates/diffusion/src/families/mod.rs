//! Model families: one folder each, and what they have in common.
//!
//! [`registry`] lists them; [`family`] is what each gives to those who make pictures with it: a [`prompt_encoder`] and
//! a [`denoiser`]. A family never knows another, nor who uses it.

mod conditioning;
mod conditioning_batch;
mod denoiser;
mod dit;
mod family;
mod flux;
mod flux2;
mod guidance;
mod hidden_blocks;
mod hunyuan_dit;
mod labels;
mod parts;
mod patch_shape;
mod pixart;
mod prompt_encoder;
mod qwen_image;
mod registry;
mod sana;
mod sd3;
mod z_image;

pub use conditioning::{Conditioning, EncodedText};
pub use conditioning_batch::ConditioningBatch;
pub use denoiser::{Denoiser, Layout, Phase, Rows, Transformer};
pub use family::{FamilyFacts, LoadedFamily};
pub use guidance::{Guidance, GuidanceKind};
pub use labels::{LabelPolicy, Labels};
pub use parts::{FamilyParts, check_buckets};
pub(crate) use patch_shape::PatchShape;
pub use prompt_encoder::{CheckedPrompt, NearestLabel, PromptEncoder, Unconditional};
#[cfg(any(test, fuzzing))]
pub(crate) use registry::FAMILIES;
pub(crate) use registry::build_transformer;
pub use registry::{FamilyEntry, entry_of};
