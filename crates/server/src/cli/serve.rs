//! `afterimage serve`: its flags.

use std::path::PathBuf;
use std::time::Duration;

use afterimage_runner::{BucketPolicy, DeviceSpec, EngineOptions};

use super::access::AccessArgs;
use super::cache::CacheArgs;
use super::model::{LabelArg, ModelArgs};
use super::output_file::OutputTarget;
use super::pictures::PictureArgs;
use super::within::{count, positive_seconds, seconds, share};
use crate::api::{ApiSettings, JobLimits, RootPath};
use crate::build_info;
use crate::config::Settings;
use crate::connections::ConnectionLimits;
use crate::error::ProgramError;
use crate::logging::{self, LogArgs};
use crate::request::UnknownFields;
use crate::server::{self, ServerOptions};
use crate::terminal;

/// Default port.
pub(super) const DEFAULT_PORT: u16 = 8080;
/// Default of the longest prompt.
pub(super) const DEFAULT_MAX_PROMPT_CHARS: usize = 4096;

/// 7680 x 4320, as in vLLM-Omni.
const DEFAULT_MAX_PIXELS: usize = 7680 * 4320;
/// More rows than a forward of any device has; a counter is kept for each number of rows.
const MOST_ROWS: usize = 4096;
/// More requests and jobs than anyone waits for; each is looked at when one comes.
const MOST_REQUESTS: usize = 65_536;
/// More connections than a process has files by default on any system.
const MOST_CONNECTIONS: usize = 1 << 20;
/// A body is in memory as a whole.
const MOST_BODY_BYTES: usize = 1 << 30;

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Configuration file in TOML. Its keys are the names of these flags, at the top of the file or in the
    /// table of their group ([limits]); environment and flags win over it
    #[arg(long, env = "AFTERIMAGE_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings in force and where each value came from, and exit
    #[arg(long, env = "AFTERIMAGE_PRINT_CONFIG", hide_env_values = true, action = clap::ArgAction::SetTrue)]
    print_config: bool,
    /// Address to listen on; 0.0.0.0 is every IPv4 address of the machine
    #[arg(long, env = "AFTERIMAGE_HOST", hide_env_values = true, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one. The line `listening on http://HOST:PORT` on standard output
    /// says which
    #[arg(long, env = "AFTERIMAGE_PORT", hide_env_values = true, default_value_t = DEFAULT_PORT)]
    port: u16,
    /// The ids that clients know the model by, such as `flux,gpt-image-1`. Responses have the first [default: folder
    /// name or hub id]
    #[arg(
        long,
        env = "AFTERIMAGE_SERVED_MODEL_NAME",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "NAME,..."
    )]
    served_model_name: Vec<String>,
    /// Path under which a proxy publishes this server, such as `/images`; the proxy may strip it or keep it. Addresses
    /// in the server's answers include it [default: none]
    #[arg(long, env = "AFTERIMAGE_ROOT_PATH", hide_env_values = true, value_name = "PATH")]
    root_path: Option<RootPath>,
    /// Serve the playground at `/`, a page that compares cached with uncached pictures
    #[arg(long, env = "AFTERIMAGE_PLAYGROUND", hide_env_values = true, value_name = "true|false", num_args = 0..=1,
        action = clap::ArgAction::Set, default_value_t = true, default_missing_value = "true")]
    playground: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    labels: LabelArg,
    /// What happens to a request for a size that is not served
    #[arg(
        long,
        env = "AFTERIMAGE_BUCKET_POLICY",
        hide_env_values = true,
        value_enum,
        default_value = "reject",
        help_heading = "Model"
    )]
    bucket_policy: BucketPolicyArg,
    #[command(flatten)]
    cache: CacheArgs,
    /// Share of the cached requests, from 0 to 1, whose pictures are made again without a cache when there is nothing
    /// else to do, to measure what the cache costs: the metrics `afterimage_cache_quality_*`. No request waits for them
    #[arg(
        long,
        env = "AFTERIMAGE_QUALITY_SAMPLE_RATE",
        hide_env_values = true,
        value_name = "SHARE",
        value_parser = share,
        allow_negative_numbers = true,
        default_value_t = 0.0,
        help_heading = "Cache"
    )]
    quality_sample_rate: f64,
    #[command(flatten)]
    workers: WorkerArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    connections: ConnectionArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    pictures: PictureArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
    /// OpenTelemetry collector that gets the spans of all requests (OTLP over HTTP), such as
    /// http://127.0.0.1:4318. In a build with the feature `otlp`
    #[arg(
        long,
        env = "AFTERIMAGE_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Logging"
    )]
    otlp_endpoint: Option<String>,
    /// What the layers of the configuration came to.
    #[arg(skip)]
    pub(super) settings: Settings,
}

/// What happens to a request for a size that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BucketPolicyArg {
    /// It is answered 400
    Reject,
    /// It gets the nearest served size, which the response names
    Nearest,
}

impl From<BucketPolicyArg> for BucketPolicy {
    fn from(policy: BucketPolicyArg) -> Self {
        match policy {
            BucketPolicyArg::Reject => Self::Reject,
            BucketPolicyArg::Nearest => Self::Nearest,
        }
    }
}

/// Where pictures are made, and how many at a time.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Workers")]
struct WorkerArgs {
    /// Devices, each with a worker of its own: `cpu`, or `cuda:N` in a build with the feature `cuda`. One
    /// named twice gets two workers that share the weights
    #[arg(
        long,
        env = "AFTERIMAGE_DEVICES",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "DEVICE,...",
        default_value = "cpu"
    )]
    devices: Vec<DeviceSpec>,
    /// Rows that run at a time on one worker, images of all sizes together: one per image, two with guidance. More than fit
    /// into a GPU's memory are refused [default: 32, or on a GPU as many of these as fit]
    #[arg(long, env = "AFTERIMAGE_MAX_BATCH_ROWS", hide_env_values = true, value_name = "ROWS",
        value_parser = count::<1, MOST_ROWS>)]
    max_batch_rows: Option<usize>,
    /// Memory of each device that may be used, in bytes: weights, cache state, prompts and the largest batch must fit, as
    /// estimated at the start; the log says what goes where [default: all of a GPU's; the machine's, beyond which there is
    /// only a warning]
    #[arg(long, env = "AFTERIMAGE_DEVICE_MEMORY_BYTES", hide_env_values = true, value_name = "BYTES",
        value_parser = count::<1, { usize::MAX }>)]
    device_memory_bytes: Option<usize>,
    /// Run a short generation of every image size before the server is ready, so that the first request finds
    /// a warm model and its work can be estimated
    #[arg(long, env = "AFTERIMAGE_WARMUP", hide_env_values = true, value_name = "true|false", num_args = 0..=1,
        action = clap::ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    warmup: bool,
}

/// What a request may ask for, and how much may wait.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Longest prompt, in characters
    #[arg(long, env = "AFTERIMAGE_MAX_PROMPT_CHARS", hide_env_values = true, value_name = "CHARS",
        value_parser = count::<1, MOST_BODY_BYTES>, default_value_t = DEFAULT_MAX_PROMPT_CHARS)]
    max_prompt_chars: usize,
    /// Largest picture, in pixels; sizes the model serves must be within it
    #[arg(long, env = "AFTERIMAGE_MAX_PIXELS", hide_env_values = true, value_name = "PIXELS",
        value_parser = count::<1, { usize::MAX }>, default_value_t = DEFAULT_MAX_PIXELS)]
    max_pixels: usize,
    /// Largest request body, in bytes
    #[arg(long, env = "AFTERIMAGE_MAX_BODY_BYTES", hide_env_values = true, value_name = "BYTES",
        value_parser = count::<1, MOST_BODY_BYTES>, default_value_t = 1024 * 1024)]
    max_body_bytes: usize,
    /// Requests that may wait for the worker; one more is answered 429. A client (a key, or an address where there are
    /// no keys) that has less than its share of them waiting is accepted all the same, up to twice as many in all
    #[arg(long, env = "AFTERIMAGE_MAX_QUEUED_REQUESTS", hide_env_values = true, value_name = "REQUESTS",
        value_parser = count::<1, MOST_REQUESTS>, default_value_t = EngineOptions::default().max_queued_requests)]
    max_queued_requests: usize,
    /// Estimated seconds of work that one worker may have before it; a request over that is answered 429. Clients share
    /// them as they share --max-queued-requests
    #[arg(long, env = "AFTERIMAGE_MAX_QUEUED_SECONDS", hide_env_values = true, value_name = "SECONDS",
        value_parser = positive_seconds, default_value_t = EngineOptions::default().max_queued_seconds)]
    max_queued_seconds: f64,
    /// Seconds from acceptance after which a request is cancelled and answered 503, or its client is disconnected if
    /// it has not taken the answer by then [default: no limit]
    #[arg(long, env = "AFTERIMAGE_REQUEST_TIMEOUT", hide_env_values = true, value_name = "SECONDS",
        value_parser = positive_seconds)]
    request_timeout: Option<f64>,
    /// Memory on each device for the cache state of all images running there, in bytes; an image for which
    /// none is left is computed without a cache
    #[arg(long, env = "AFTERIMAGE_CACHE_MEMORY_BYTES", hide_env_values = true, value_name = "BYTES",
        value_parser = count::<0, { usize::MAX }>, default_value_t = EngineOptions::default().cache_memory_bytes)]
    cache_memory_bytes: usize,
    /// Memory for the encoded prompts of recent requests, in bytes; 0 keeps none
    #[arg(long, env = "AFTERIMAGE_PROMPT_CACHE_BYTES", hide_env_values = true, value_name = "BYTES",
        value_parser = count::<0, { usize::MAX }>, default_value_t = EngineOptions::default().prompt_cache_bytes)]
    prompt_cache_bytes: usize,
    /// Jobs of /v1/images/jobs that are kept, in any state; one more is answered 429 unless a finished one
    /// has been fetched. Clients share them as they share --max-queued-requests
    #[arg(long, env = "AFTERIMAGE_MAX_JOBS", hide_env_values = true, value_name = "JOBS",
        value_parser = count::<1, MOST_REQUESTS>, default_value_t = 256)]
    max_jobs: usize,
    /// Seconds for which a job is kept after it has ended
    #[arg(long, env = "AFTERIMAGE_JOB_RETENTION", hide_env_values = true, value_name = "SECONDS",
        value_parser = positive_seconds, default_value_t = 3600.0)]
    job_retention: f64,
    /// Memory for the previews and results of jobs, in bytes; beyond it, fetched jobs are removed, and old ones of
    /// clients that use more than their share, the newest never
    #[arg(long, env = "AFTERIMAGE_JOB_MEMORY_BYTES", hide_env_values = true, value_name = "BYTES",
        value_parser = count::<0, { usize::MAX }>, default_value_t = 256 << 20)]
    job_memory_bytes: usize,
    /// What happens to a request with an unknown field
    #[arg(long, env = "AFTERIMAGE_UNKNOWN_FIELDS", hide_env_values = true, value_enum, default_value = "reject")]
    unknown_fields: UnknownFields,
    /// Seconds after the server was asked to stop in which accepted requests are finished, and what is finished, jobs
    /// included, is handed out; then the rest is given up
    #[arg(
        long,
        env = "AFTERIMAGE_DRAIN_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS",
        value_parser = seconds,
        default_value_t = 30.0
    )]
    drain_timeout: f64,
}

/// How many clients there may be, and how slow.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connections")]
struct ConnectionArgs {
    /// Connections open at a time; further clients wait until one is closed
    #[arg(long, env = "AFTERIMAGE_MAX_CONNECTIONS", hide_env_values = true, value_name = "CONNECTIONS",
        value_parser = count::<1, MOST_CONNECTIONS>, default_value_t = 1024)]
    max_connections: usize,
    /// Seconds a client has for the head of a request, and for which an idle connection is kept; then it is closed
    #[arg(long, env = "AFTERIMAGE_HEADER_TIMEOUT", hide_env_values = true, value_name = "SECONDS",
        value_parser = positive_seconds, default_value_t = 10.0)]
    header_timeout: f64,
    /// Seconds a client has for the body of a request; then it is answered 408
    #[arg(long, env = "AFTERIMAGE_BODY_TIMEOUT", hide_env_values = true, value_name = "SECONDS",
        value_parser = positive_seconds, default_value_t = 30.0)]
    body_timeout: f64,
    /// Seconds for which a client may take nothing of its answer; then it is disconnected. Less than --drain-timeout, so
    /// that such a client does not hold up a server that ends
    #[arg(long, env = "AFTERIMAGE_WRITE_TIMEOUT", hide_env_values = true, value_name = "SECONDS",
        value_parser = positive_seconds, default_value_t = 20.0)]
    write_timeout: f64,
}

impl ServeArgs {
    pub(super) fn run(mut self) -> Result<(), ProgramError> {
        let settings = std::mem::take(&mut self.settings);
        self.serve(&settings).map_err(|error| error.found_in(&settings))
    }

    fn serve(self, settings: &Settings) -> Result<(), ProgramError> {
        let print_config = self.print_config;
        let log = self.log.clone();
        let pictures = self.pictures.clone();
        let otlp_endpoint = self.otlp_endpoint.clone();
        let mut options = self.options()?;
        if print_config {
            log.warnings.iter().for_each(|warning| terminal::note(format_args!("warning: {warning}")));
            return OutputTarget::StandardOutput.write(settings.to_toml().as_bytes()).map(drop);
        }
        let _logging = logging::start_server(&log, "info", otlp_endpoint.as_deref())?;
        tracing::info!(
            version = build_info::VERSION,
            commit = build_info::COMMIT,
            features = build_info::FEATURES,
            "starting"
        );
        options.api.store = pictures.store()?;
        server::run(options)
    }

    /// Everything that can be checked without the model is checked here.
    pub(super) fn options(self) -> Result<ServerOptions, ProgramError> {
        let mut model = self.model.source(Some(&self.labels))?;
        model.options.max_pixels = Some(self.limits.max_pixels);
        if self.otlp_endpoint.is_some() && !cfg!(feature = "otlp") {
            let message = "it has no effect: this program was built without the feature `otlp`";
            return Err(ProgramError::setting("otlp-endpoint", message));
        }
        let cache = self.cache.defaults()?;
        server::check_sizes(&self.model.buckets(), self.limits.max_pixels)?;
        let served_model_names = served_model_names(&self.served_model_name)?;
        let access = self.access.settings()?;
        let request_timeout = self.limits.request_timeout.map(Duration::from_secs_f64);
        Ok(ServerOptions {
            host: self.host,
            port: self.port,
            model,
            devices: self.workers.devices,
            engine: EngineOptions {
                max_batch_rows: self.workers.max_batch_rows,
                device_memory_bytes: self.workers.device_memory_bytes.map(|bytes| bytes as u64),
                max_queued_requests: self.limits.max_queued_requests,
                max_queued_seconds: self.limits.max_queued_seconds,
                request_timeout,
                cache_memory_bytes: self.limits.cache_memory_bytes,
                prompt_cache_bytes: self.limits.prompt_cache_bytes,
                bucket_policy: self.bucket_policy.into(),
                warmup: self.workers.warmup,
            },
            connections: ConnectionLimits {
                header_timeout: Duration::from_secs_f64(self.connections.header_timeout),
                write_timeout: Duration::from_secs_f64(self.connections.write_timeout),
                max_connections: self.connections.max_connections,
            },
            drain_timeout: Duration::from_secs_f64(self.limits.drain_timeout),
            has_playground: self.playground,
            access,
            api: ApiSettings {
                served_model_names,
                max_prompt_chars: self.limits.max_prompt_chars,
                max_body_bytes: self.limits.max_body_bytes,
                body_timeout: Duration::from_secs_f64(self.connections.body_timeout),
                request_timeout,
                unknown_fields: self.limits.unknown_fields,
                cache,
                quality_sample_rate: self.quality_sample_rate,
                jobs: JobLimits {
                    max_jobs: self.limits.max_jobs,
                    retention: Duration::from_secs_f64(self.limits.job_retention),
                    memory_bytes: self.limits.job_memory_bytes,
                },
                max_pixels: self.limits.max_pixels,
                image_metadata: self.pictures.metadata.image_metadata,
                store: None,
                default_response_format: self.pictures.response_format()?,
                root_path: self.root_path.unwrap_or_default(),
                public_url: self.pictures.public_url,
            },
        })
    }
}

/// The names without blanks around them, each once.
fn served_model_names(given: &[String]) -> Result<Vec<String>, ProgramError> {
    let mut names: Vec<String> = Vec::with_capacity(given.len());
    for name in given.iter().map(|name| name.trim()) {
        if name.is_empty() {
            let message = "one of its names is empty, which is how a client leaves the choice to the server";
            return Err(ProgramError::setting("served-model-name", message));
        }
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
