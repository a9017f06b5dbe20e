//! The engine as a client of it sees it: every picture of a study is the client's own request.

use afterimage_runner::{
    Engine, Hold, ImageRequest, ModelInfo, Owner, PlannedRequest, RequestError, SubmitError, Ticket,
};
use afterimage_study::PictureMaker;

use crate::api::access::Admitted;

/// Makes pictures for one client.
pub(super) struct ClientEngine {
    pub(super) engine: Engine,
    pub(super) owner: Owner,
    /// The client's place among its own requests, which the whole study takes up.
    pub(super) admitted: Admitted,
}

impl PictureMaker for ClientEngine {
    fn model(&self) -> &ModelInfo {
        self.engine.model()
    }

    fn device(&self) -> String {
        PictureMaker::device(&self.engine)
    }

    fn plan(&self, request: ImageRequest) -> Result<PlannedRequest, RequestError> {
        self.engine.plan(request)
    }

    fn submit(&self, planned: PlannedRequest) -> Result<Ticket, SubmitError> {
        self.engine.submit(planned.of_client(self.owner, Hold::new(self.admitted.clone())))
    }
}
