//! The loop of one worker, an iteration at a time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::batch_key::BatchKey;
use super::due_previews::DuePreviews;
use super::fair_order::{LastBegun, RowsByOwner, waiting_in_order};
use super::loop_parts::LoopParts;
use super::room::{Room, with_room};
use super::running_request::{AcceptedRequest, ImageState, RunningRequest};
use super::shared_step::{self, StepFailure};
use super::statistics::count;
use super::step_model::StepModel;
use super::turns::Turns;
use super::work_estimate::row_steps;
use crate::error::RunnerError;
use crate::request::{ImageSpec, PlannedRequest, RequestFailure, Size};

/// The requests of one worker, waiting and running. See the [module](super) for its rules.
pub(super) struct StepLoop<M: StepModel> {
    parts: LoopParts<M>,
    /// In order of acceptance.
    requests: BTreeMap<u64, RunningRequest<M::Image>>,
    next_request: u64,
    turns: Turns,
    last_begun: LastBegun,
    previews: DuePreviews,
    room: Room,
}

/// What became of an image in a shared step.
struct Stepped {
    request: u64,
    index: usize,
    failure: Option<StepFailure>,
}

impl<M: StepModel> StepLoop<M> {
    pub(super) fn new(parts: LoopParts<M>) -> Self {
        Self {
            parts,
            requests: BTreeMap::new(),
            next_request: 0,
            turns: Turns::default(),
            last_begun: LastBegun::default(),
            previews: DuePreviews::default(),
            room: Room::default(),
        }
    }

    /// Takes a request in; it joins at the next iteration.
    pub(super) fn submit(&mut self, accepted: AcceptedRequest) {
        let record = RunningRequest::new(accepted);
        let (rows, limit) = (record.rows_per_image(), self.parts.max_batch_rows);
        if rows > limit {
            return record
                .fail(RequestFailure::Failed(format!("an image of {rows} rows does not fit batches of {limit}")));
        }
        self.requests.insert(self.next_request, record);
        self.next_request += 1;
    }

    /// Nothing waits and nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Drops, admits, makes one step of one key's images, decodes.
    pub(super) fn iterate(&mut self) {
        self.drop_ended();
        self.admit();
        // Before the step as well: during it the pool weighs new requests by the ledger.
        self.publish();
        self.retire_turns();
        if let Some(key) = self.turns.next() {
            self.step(key);
        }
        // One picture and one preview per iteration: running images wait for no more than that.
        self.decode_one();
        self.previews.make_one(&self.parts, &mut self.requests);
        self.publish();
    }

    /// Makes two steps and a picture of every spec, which pages the model in and gives first estimates.
    pub(super) fn warm_up(&self, specs: &[Arc<ImageSpec>]) -> Result<(), RunnerError> {
        let LoopParts { model, clock, shared, .. } = &self.parts;
        for spec in specs {
            let mut image = model.begin(spec, 0)?;
            model.step(&mut [&mut image])?;
            // The first step is slower than any later one.
            let started = clock.now();
            model.step(&mut [&mut image])?;
            let stepped = clock.now();
            model.decode(&image)?;
            let decoded = clock.now();
            shared.ledger.measure(|estimates| {
                let seconds = (stepped - started).as_secs_f64();
                estimates.add_step(spec.size, row_steps(spec.guidance.rows(), false), seconds);
                estimates.add_decode(spec.size, (decoded - stepped).as_secs_f64());
            });
        }
        Ok(())
    }

    /// Gives up requests whose client has left or that have expired.
    fn drop_ended(&mut self) {
        let now = self.parts.clock.now();
        let ended: Vec<_> = self.requests.iter().filter_map(|(id, record)| Some((*id, record.end(now)?))).collect();
        for (id, error) in ended {
            self.fail(id, error);
        }
        self.retire_turns();
    }

    /// Begins waiting images in their order until the worker is full. Only one of them may have texts to be encoded;
    /// the next one that has some keeps its bucket waiting.
    fn admit(&mut self) {
        self.last_begun.retain(&self.requests);
        let mut rows_by_owner = RowsByOwner::occupied(&self.requests);
        let mut free = self.parts.max_batch_rows - self.occupied_rows();
        let (mut has_encoded, mut passed_over) = (false, HashSet::new());
        while let Some((id, index)) = rows_by_owner.next_image(&self.requests, &self.last_begun, &passed_over)
            && let Some(record) = self.requests.get(&id)
        {
            let (size, rows, owner) = (record.spec().size, record.rows_per_image(), record.owner());
            // Later images must not pass it, however few rows they need: it might never find room.
            if rows > free {
                break;
            }
            let encodes = self.parts.model.must_encode(record.spec());
            if encodes && has_encoded {
                passed_over.insert(size);
                continue;
            }
            has_encoded |= encodes;
            free -= rows;
            rows_by_owner.add(owner, rows);
            self.last_begun.note(owner, self.next_request);
            self.next_request += 1;
            self.begin(id, index);
        }
    }

    fn begin(&mut self, id: u64, index: usize) {
        let LoopParts { model, clock, shared, .. } = &self.parts;
        let Some(record) = self.requests.get_mut(&id) else { return };
        let started = clock.now();
        if !record.has_begun {
            record.has_begun = true;
            record.timings.queue_seconds = started.saturating_sub(record.accepted.accepted).as_secs_f64();
            record.accepted.spans.queue_ends();
        }
        let PlannedRequest { spec, seeds, .. } = record.request();
        let began = || with_room(model.as_ref(), || model.begin(spec, seeds.of(index)));
        let image = match record.accepted.spans.encode(index).in_scope(began) {
            Ok(image) => image,
            Err(reason) => return self.fail(id, RequestFailure::Failed(reason)),
        };
        let key = model.batch_key(&image);
        record.warnings = record.accepted.request.warnings.clone();
        record.warnings.extend(model.warnings(&image));
        record.images[index].state = ImageState::Running(image);
        let seconds = (clock.now() - started).as_secs_f64();
        record.timings.encode_seconds += seconds;
        shared.ledger.measure(|estimates| estimates.add_begin(seconds));
        record.accepted.spans.denoise_begins();
        count(&shared.counters.images_begun);
        if self.turns.enter(key) {
            count(&shared.counters.joins);
        }
    }

    /// Takes the turn from keys without running images, and what was found out about their room.
    fn retire_turns(&mut self) {
        let (mut turns, mut room) = (std::mem::take(&mut self.turns), std::mem::take(&mut self.room));
        turns.retire(|key| self.running_rows(key) > 0);
        room.retire(|key| self.running_rows(key) > 0);
        (self.turns, self.room) = (turns, room);
    }

    /// Rows of running images with this key.
    fn running_rows(&self, key: BatchKey) -> usize {
        let model = self.parts.model.as_ref();
        let rows = |record: &RunningRequest<M::Image>| {
            let has_key = |image: &&M::Image| model.batch_key(image) == key;
            record.running().filter(has_key).count() * record.rows_per_image()
        };
        self.requests.values().map(rows).sum()
    }

    /// Rows of all running images, and of those that wait to be decoded.
    fn occupied_rows(&self) -> usize {
        self.requests.values().map(RunningRequest::occupied_rows).sum()
    }

    /// Makes one step of all running images with this key.
    fn step(&mut self, key: BatchKey) {
        for Stepped { request, index, failure } in self.shared_step(key) {
            match failure {
                // Another image of the request may have failed it already.
                Some(failure) => self.fail_step(request, index, &failure),
                None => self.after_step(request, index),
            }
        }
    }

    /// Notes what is due after an image's step: a preview, or its decoding.
    fn after_step(&mut self, request: u64, index: usize) {
        let Some(record) = self.requests.get_mut(&request) else { return };
        let (step, steps) = (record.images[index].step, record.spec().forwards());
        if record.accepted.outcome.previews.is_some()
            && let Some(number) = record.request().previews.due(step, steps)
        {
            self.previews.add(request, index, number);
        }
        if step == steps {
            record.images[index].set_stepped();
            if record.has_made_all_steps() {
                record.denoise_ends();
            }
        } else if let ImageState::Running(image) = &record.images[index].state {
            // The step may have led into another phase, which is not joined but entered.
            self.turns.enter(self.parts.model.batch_key(image));
        }
    }

    fn shared_step(&mut self, key: BatchKey) -> Vec<Stepped> {
        let LoopParts { model, clock, shared, max_batch_rows } = &self.parts;
        let mut members = Vec::new();
        let (mut images, mut rows_each) = (Vec::new(), Vec::new());
        let mut records = Vec::new();
        let mut last = Vec::new();
        for (id, record) in &mut self.requests {
            let (rows, forwards) = (record.spec().guidance.rows(), record.spec().forwards());
            let rows_per_forward = record.rows_per_image();
            for (index, image) in record.images.iter_mut().enumerate() {
                if let ImageState::Running(running) = &mut image.state
                    && model.batch_key(running) == key
                {
                    if image.step + 1 == forwards {
                        last.push(members.len());
                    }
                    members.push(Stepped { request: *id, index, failure: None });
                    images.push(running);
                    rows_each.push(rows_per_forward);
                    records.push((&mut image.step, &mut image.cached, rows));
                }
            }
        }
        let started = clock.now();
        let mut most_rows = self.room.most_rows(key, *max_batch_rows);
        let mut outcome = shared_step::step(model.as_ref(), &mut images, &rows_each, &mut most_rows);
        // A forward checks the latents it begins with; those of a last step enter no further forward.
        outcome.check_last(model.as_ref(), &images, &last);
        let seconds = (clock.now() - started).as_secs_f64();

        let mut work = 0.0;
        for ((step, cached, rows), image) in records.into_iter().zip(&images) {
            let cached_now = model.cached_forwards(image);
            work += row_steps(rows, cached_now > *cached);
            (*step, *cached) = (*step + 1, cached_now);
        }
        shared.counters.count_step(&outcome);
        if outcome.too_large > 0 {
            self.room.note(key, most_rows);
        }
        if outcome.was_smooth() {
            shared.ledger.measure(|estimates| estimates.add_step(Size::of(key.canvas), work, seconds));
        }
        for (member, failure) in outcome.into_failures() {
            members[member].failure = Some(failure);
        }
        for (id, record) in &mut self.requests {
            if members.iter().any(|member| member.request == *id) {
                record.timings.denoise_seconds += seconds;
            }
        }
        members
    }

    /// Decodes one image that has made all its steps, of the oldest request that has such, and answers the
    /// request if that was its last.
    fn decode_one(&mut self) {
        let oldest = self.requests.iter().find_map(|(id, record)| Some((*id, record.next_stepped()?)));
        let Some((id, index)) = oldest else { return };
        match self.requests.get(&id).and_then(|record| record.end(self.parts.clock.now())) {
            Some(error) => self.fail(id, error),
            None => self.decode(id, index),
        }
        if self.requests.get(&id).is_some_and(RunningRequest::is_done)
            && let Some(record) = self.requests.remove(&id)
        {
            record.report_progress(0);
            count(&self.parts.shared.counters.finished);
            record.finish(self.parts.shared.device);
        }
    }

    fn decode(&mut self, id: u64, index: usize) {
        let LoopParts { model, clock, shared, .. } = &self.parts;
        let Some(record) = self.requests.get_mut(&id) else { return };
        let ImageState::Stepped(image) = &record.images[index].state else { return };
        let started = clock.now();
        let decoded = || with_room(model.as_ref(), || model.decode(image));
        let pixels = match record.accepted.spans.decode(index).in_scope(decoded) {
            Ok(pixels) => pixels,
            Err(reason) => return self.fail(id, RequestFailure::Failed(reason)),
        };
        let seconds = (clock.now() - started).as_secs_f64();
        record.timings.decode_seconds += seconds;
        record.images[index].set_done(model.as_ref(), pixels);
        let (spec, cached) = (record.spec(), record.images[index].cached);
        shared.ledger.measure(|estimates| {
            estimates.add_decode(spec.size, seconds);
            estimates.add_image(spec.cache.backend(), cached, spec.forwards());
        });
    }

    fn fail_step(&mut self, id: u64, index: usize, failure: &StepFailure) {
        let Some(record) = self.requests.get(&id) else { return };
        let StepFailure { steps_ago, reason } = failure;
        let (step, steps) = (record.steps(record.images[index].step - steps_ago), record.spec().steps);
        let seed = record.request().seeds.of(index);
        self.fail(id, RequestFailure::Failed(format!("step {step} of {steps}, seed {seed}: {reason}")));
    }

    /// Ends a request without images.
    fn fail(&mut self, id: u64, error: RequestFailure) {
        let Some(record) = self.requests.remove(&id) else { return };
        let request = record.accepted.spans.request().clone();
        let _request = request.enter();
        let counters = &self.parts.shared.counters;
        match &error {
            RequestFailure::Failed(reason) => {
                count(&counters.failed);
                tracing::error!(reason, "request failed");
            }
            RequestFailure::Cancelled => {
                count(&counters.cancelled);
                tracing::info!("request cancelled");
            }
            RequestFailure::TimedOut { timeout } => {
                count(&counters.timed_out);
                tracing::info!(timeout_seconds = timeout.as_secs_f64(), "request out of time");
            }
        }
        record.fail(error);
    }

    /// Brings the ledger and the clients up to date.
    fn publish(&self) {
        let records = self.requests.values();
        self.parts.shared.ledger.update(records.map(|record| (&record.accepted.entry, record.remaining())));
        self.requests.values().filter(|record| record.has_begun).for_each(|record| record.report_progress(0));
        for (place, id) in (1..).zip(waiting_in_order(&self.requests, &self.last_begun)) {
            if let Some(record) = self.requests.get(&id) {
                record.report_progress(place);
            }
        }
    }
}
