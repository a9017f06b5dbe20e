//! Flow matching: the model predicts the velocity from picture to noise, and a step follows it back.
//!
//! Follows diffusers 0.42.1:
//!
//! * scheduling_flow_match_euler_discrete.py: `FlowMatchEulerDiscreteScheduler` (lines 48-662):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//! * scheduling_flow_match_heun_discrete.py: `FlowMatchHeunDiscreteScheduler` (lines 43-355):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! References: Lipman et al., "Flow Matching for Generative Modeling", arXiv 2210.02747; the shift of
//! noise levels: Esser et al., "Scaling Rectified Flow Transformers", arXiv 2403.03206, section 5.3.2.

mod euler;
mod heun;
mod sigmas;

pub(super) use euler::FlowMatchEuler;
pub(super) use heun::FlowMatchHeun;
pub(super) use sigmas::flow_shift;
