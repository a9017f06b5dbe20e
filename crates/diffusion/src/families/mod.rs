//! Model families: one folder each, and what they have in common.
//!
//! [`registry`] lists them; [`family`] is what each gives to those who make pictures with it. A family never knows
//! another, nor who uses it.

mod conditioning;
mod dit;
mod family;
mod flux;
mod guidance;
mod labels;
mod parts;
mod patch_shape;
mod pixart;
mod registry;
mod sd3;

pub use conditioning::{Conditioning, EncodedText};
pub use family::{Family, FamilyFacts, LoadedFamily, NearestLabel, ReadPrompt, Rows, Unconditional};
pub use guidance::{Guidance, GuidanceKind};
pub use labels::{LabelPolicy, Labels};
pub use parts::{FamilyParts, check_buckets};
pub(crate) use patch_shape::{MAX_DIMENSION, PatchShape};
pub(crate) use registry::build_transformer;
pub use registry::{FamilyEntry, entry_of};
