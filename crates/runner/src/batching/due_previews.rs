//! Previews that are due, and making them one by one.
//!
//! A preview is a decoding like that of a picture: work that is estimated, and not done where nobody can take it.

use std::collections::{BTreeMap, VecDeque};

use super::loop_parts::LoopParts;
use super::room::with_room;
use super::running_request::{ImageState, RunningRequest};
use super::statistics::count;
use super::step_model::StepModel;
use crate::request::Preview;

/// In the order they became due.
#[derive(Default)]
pub(super) struct DuePreviews(VecDeque<DuePreview>);

/// A preview that has to be made.
struct DuePreview {
    request: u64,
    index: usize,
    number: usize,
}

impl DuePreviews {
    pub(super) fn add(&mut self, request: u64, index: usize, number: usize) {
        self.0.push_back(DuePreview { request, index, number });
    }

    /// Makes the preview that has been due for longest, as the image stands now. One of an image that has made
    /// all its steps, one that fails and one that its client could not take are dropped and counted: the picture
    /// itself is still to come.
    pub(super) fn make_one<M: StepModel>(
        &mut self,
        parts: &LoopParts<M>,
        requests: &mut BTreeMap<u64, RunningRequest<M::Image>>,
    ) {
        let now = parts.clock.now();
        while let Some(due) = self.0.pop_front() {
            let Some(record) = requests.get_mut(&due.request) else { continue };
            let image = &mut record.images[due.index];
            image.previews_left = image.previews_left.saturating_sub(1);
            let is_wanted = record.end(now).is_none() && record.accepted.outcome.takes_previews();
            if is_wanted && let ImageState::Running(image) = &record.images[due.index].state {
                return make(parts, record, &due, image);
            }
            count(&parts.shared.counters.previews_dropped);
        }
    }
}

fn make<M: StepModel>(parts: &LoopParts<M>, record: &RunningRequest<M::Image>, due: &DuePreview, image: &M::Image) {
    let LoopParts { model, clock, shared, .. } = parts;
    let Some(sender) = &record.accepted.outcome.previews else { return };
    let (index, step) = (due.index, record.images[due.index].step);
    let started = clock.now();
    let made = with_room(model.as_ref(), || model.preview(image));
    let seconds = (clock.now() - started).as_secs_f64();
    let sent = match made {
        Ok(Some(pixels)) => {
            shared.ledger.measure(|estimates| estimates.add_decode(record.spec().size, seconds));
            sender.try_send(Preview { image: index, number: due.number, step, pixels }).is_ok()
        }
        Ok(None) => false,
        Err(reason) => {
            let _request = record.accepted.spans.request().enter();
            tracing::warn!(reason, "a preview could not be made");
            false
        }
    };
    if !sent {
        count(&shared.counters.previews_dropped);
    }
}
