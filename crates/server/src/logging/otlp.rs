//! Spans to an OpenTelemetry collector, as protobuf over HTTP.
//!
//! Only this program's spans are exported; a request that comes with a `traceparent` header becomes
//! part of that trace. Spans are sent in batches by a thread of their own, at the latest when the
//! program ends; what cannot be sent is dropped with a line in the log.

use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TraceId, TracerProvider};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// Where a collector takes spans.
const TRACES_PATH: &str = "/v1/traces";
/// Longest time for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends what is left when dropped.
#[derive(Debug)]
pub(crate) struct SpanExport(SdkTracerProvider);

/// The layer that collects spans for the collector at `endpoint`, such as `http://127.0.0.1:4318`.
pub(crate) fn start<S>(endpoint: &str) -> Result<(impl Layer<S> + use<S>, SpanExport), String>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let url = format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/'));
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(format!("it is `{endpoint}`; it must be a URL such as http://127.0.0.1:4318"));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .build()
        .map_err(|error| error.to_string())?;
    let resource = Resource::builder().with_service_name(env!("CARGO_BIN_NAME")).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let own = Targets::new().with_target("afterimage", LevelFilter::INFO);
    let tracer = provider.tracer(env!("CARGO_BIN_NAME"));
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
    Ok((layer.with_filter(own), SpanExport(provider)))
}

/// Makes a request's span part of the trace that its headers name, or the first of one; returns the
/// trace's id. `None` without a collector.
pub(crate) fn join_trace(span: &Span, headers: &HeaderMap) -> Option<String> {
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    span.set_parent(context).ok()?;
    let id = span.context().span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

impl Drop for SpanExport {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Blocks, which is fine on the exporter's own thread.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        // The exporter judges the status.
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        Self(config.build().new_agent())
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = response.into_parts();
        Ok(Response::from_parts(parts, Bytes::from(body.read_to_vec()?)))
    }
}
