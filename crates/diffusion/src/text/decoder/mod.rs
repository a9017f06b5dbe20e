//! Language models of the decoder kind, read as text encoders: Qwen3, the text half of Qwen2.5-VL, Gemma 2, Mistral and
//! Llama. One model with switches: all are stacks of causal attention and gated feed-forward between RMS norms.
//!
//! Follows transformers 5.23.0:
//!
//! * modeling_qwen3.py: `Qwen3Model` (lines 353-432):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/qwen3/modeling_qwen3.py#L353>
//! * modeling_qwen2_5_vl.py: `Qwen2_5_VLTextModel` (lines 745-858):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py#L745>
//! * modeling_gemma2.py: `Gemma2Model`:
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/gemma2/modeling_gemma2.py>
//!
//! Departs from it: only the layers that somebody reads are loaded and run; there is no cache of keys and values and no
//! prediction of tokens; sines and cosines stay f32.

mod attention;
mod config;
mod facts;
mod keys;
mod kind;
mod layer;
mod mask;
mod model;
mod norm;
mod taps;
mod weight_names;

pub(super) use config::DecoderConfig;
pub use kind::DecoderKind;
pub(super) use model::Decoder;
pub(super) use taps::Taps;
pub(super) use weight_names::unread;
