//! Who makes the pictures of a study.

use afterimage_runner::{Engine, ImageRequest, ModelInfo, PlannedRequest, RequestError, SubmitError, Ticket};

/// Makes pictures on request. A study asks for one at a time.
///
/// [`Engine`] is one. A server that studies beside its clients' requests wraps its engine, and says in `submit` whose the requests are.
/// What it is asked for is timed from its first step to its last, steps shared with others in full.
pub trait PictureMaker {
    /// The model.
    fn model(&self) -> &ModelInfo;

    /// Where it computes, such as `cpu`.
    fn device(&self) -> String;

    /// Checks a request.
    ///
    /// # Errors
    /// The field that cannot be served.
    fn plan(&self, request: ImageRequest) -> Result<PlannedRequest, RequestError>;

    /// Has a picture made. A study comes back later while there is no room.
    ///
    /// # Errors
    /// If it cannot be accepted now.
    fn submit(&self, planned: PlannedRequest) -> Result<Ticket, SubmitError>;
}

impl PictureMaker for Engine {
    fn model(&self) -> &ModelInfo {
        self.model()
    }

    fn device(&self) -> String {
        let devices: Vec<_> = self.devices().iter().map(ToString::to_string).collect();
        devices.join(",")
    }

    fn plan(&self, request: ImageRequest) -> Result<PlannedRequest, RequestError> {
        self.plan(request)
    }

    fn submit(&self, planned: PlannedRequest) -> Result<Ticket, SubmitError> {
        self.submit(planned)
    }
}
