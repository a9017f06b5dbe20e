//! Flow matching: the model predicts the way from picture to noise, and a step follows it back.
//!
//! References: Lipman et al., "Flow Matching for Generative Modeling", arXiv 2210.02747; the shift of
//! noise levels: Esser et al., "Scaling Rectified Flow Transformers", arXiv 2403.03206, section 5.3.2.

mod euler;
mod heun;
mod sigmas;

pub(super) use euler::FlowMatchEuler;
pub(super) use heun::FlowMatchHeun;
