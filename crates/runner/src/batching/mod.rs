//! Step-level continuous batching: requests join and leave the batch between denoising steps.
//!
//! One thread per device owns a [`StepLoop`]. An iteration of the loop drops what was cancelled or
//! has expired, begins waiting images, makes one step of the running images of one [`BatchKey`], and decodes one
//! of those that are done. Nothing joins or leaves but between iterations.
//!
//! # Rules it keeps
//!
//! * Only images of one key share a forward: one bucket, and one phase of the model. In all else the rows of a batch
//!   may differ (`docs/adr/0004-the-bucket-is-the-batch-key.md`).
//! * An image may have another key after a step; it keeps its rows.
//! * The running rows of a worker, those of all buckets together, never exceed `max_batch_rows`. An image whose steps are
//!   made keeps its rows until it is decoded.
//! * The images of an owner begin in the order of their requests, and of several owners that one's is next which has the
//!   fewest rows ([`fair_order`]). Nobody passes an image that waits for room.
//! * Keys with running images take turns: between two steps of a running image, and before its
//!   first, at most `active keys - 1` other iterations pass. A waiting image therefore begins at the
//!   latest when the images ahead of it have made their steps at that pace.
//! * An iteration encodes the texts of one image at most (its prompt and its negative prompt, for which
//!   offloaded encoders are loaded once), decodes one finished picture at most, and one preview at most. So between two steps of a running image there pass
//!   at most as many text encodings and decodings as iterations, however many requests come or end at once.
//!   Images whose texts are kept from earlier, and classes, wait for nobody's encoding. Where an image has to
//!   wait for its turn to be encoded, those that follow in its bucket wait with it.
//! * Finished pictures are decoded from the oldest request on, previews in the order they became due; a
//!   preview shows the image as it is by then, and is dropped, not made, where all its steps are made by then, where its
//!   client has left, or has no room for it.
//! * A request whose client has left keeps its place in the queue, and what it holds from its client
//!   ([`Hold`](crate::request::Hold)), until the loop has let it go.
//! * An image that fails, fails its own request and no other. Images that do not fit into the device's memory together
//!   are stepped in forwards of fewer rows ([`room`]).
//! * A device makes samples ([`sample_queue`]) only while none of its workers has a request.
//!
//! The loop knows neither a model ([`StepModel`]) nor the time of day ([`Clock`]), so its tests run on
//! a fake model in virtual time.

mod batch_key;
mod clock;
mod due_previews;
mod fair_order;
mod loop_parts;
pub(crate) mod pipeline_model;
mod pool;
mod request_spans;
mod room;
mod running_request;
mod sample_queue;
mod shared_step;
mod statistics;
mod step_loop;
mod step_model;
mod turns;
mod work_estimate;
mod work_ledger;
mod work_loop;
mod worker;

#[cfg(test)]
mod tests;

pub(crate) use batch_key::BatchKey;
pub(crate) use clock::SystemClock;
pub use pool::SubmitError;
pub(crate) use pool::{PoolLimits, WorkerPool, WorkerSeat};
pub use statistics::EngineStatistics;
pub(crate) use step_model::StepModel;
pub use work_estimate::BucketEstimate;

#[cfg(doc)]
use {clock::Clock, step_loop::StepLoop};
