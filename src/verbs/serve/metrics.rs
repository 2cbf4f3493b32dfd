//! What the server counts, in the form that Prometheus reads.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::app::ModelInfo;

/// The kind of what [`Metrics::text`] gives.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels<const N: usize, M = Counter> = Family<[(&'static str, String); N], M>;

/// Counters, gauges and histograms of one server.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// HTTP requests by route and status.
    pub(super) requests: Labels<2>,
    /// Completion requests that were run, by how they ended.
    pub(super) ended: Labels<1>,
    /// Tokens of prompts that were read.
    pub(super) prompt_tokens: Counter,
    /// Tokens that were generated.
    pub(super) generated_tokens: Counter,
    /// Requests of which the head is here and that neither run nor are refused.
    pub(super) arriving: Gauge,
    /// Requests that run.
    pub(super) running: Gauge,
    /// Requests that wait for others to end.
    pub(super) waiting: Gauge,
    /// Connections that were ended because the client took nothing.
    pub(super) stalled: Counter,
    /// 1 if the machine that runs the model is gone.
    pub(super) failed: Gauge,
    info: Labels<3, Gauge>,
    model: String,
    /// From arrival to the start of the run.
    pub(super) queue_seconds: Histogram,
    /// From arrival to the first token.
    pub(super) first_token_seconds: Histogram,
    /// From one token to the next.
    pub(super) token_seconds: Histogram,
    /// From arrival to the end.
    pub(super) request_seconds: Histogram,
}

impl Metrics {
    /// Nothing has happened yet.
    pub(super) fn new(model: &ModelInfo, device: &str) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 20));
        let mut metrics = Self {
            registry: Registry::with_prefix("sixpack"),
            requests: Family::default(),
            ended: Family::default(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            arriving: Gauge::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            stalled: Counter::default(),
            failed: Gauge::default(),
            info: Family::default(),
            model: model.name.clone(),
            queue_seconds: seconds(),
            first_token_seconds: seconds(),
            token_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 18)),
            request_seconds: seconds(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "HTTP requests", metrics.requests.clone());
        registry.register("completions", "Completion requests that were run, by how they ended", metrics.ended.clone());
        registry.register("prompt_tokens", "Tokens of prompts that were read", metrics.prompt_tokens.clone());
        registry.register("generated_tokens", "Tokens that were generated", metrics.generated_tokens.clone());
        registry.register("requests_arriving", "Completion requests on their way in", metrics.arriving.clone());
        registry.register("requests_running", "Completion requests that run", metrics.running.clone());
        registry.register("requests_waiting", "Completion requests in the queue", metrics.waiting.clone());
        let help = "Connections that were ended because the client took nothing";
        registry.register("connections_stalled", help, metrics.stalled.clone());
        registry.register("device_failed", "1 if what the model runs on is gone", metrics.failed.clone());
        registry.register("queue_seconds", "From arrival to the start of a run", metrics.queue_seconds.clone());
        let first = metrics.first_token_seconds.clone();
        registry.register("first_token_seconds", "From arrival to the first token", first);
        registry.register("token_seconds", "From one token of a text to the next", metrics.token_seconds.clone());
        registry.register("request_seconds", "From arrival to the end of a run", metrics.request_seconds.clone());
        registry.register("server_info", "What is served, and what it runs on now", metrics.info.clone());
        registry.register("model_bytes", "Size of the model's file", number(model.bytes as f64));
        if let Some(bits) = model.bits_per_byte {
            let help = "Bits per byte of text, as measured when the model was packed";
            registry.register("model_bits_per_byte", help, number(bits));
        }
        metrics.runs_on(device);
        metrics
    }

    /// From now on the model runs on another device.
    pub(super) fn runs_on(&self, device: &str) {
        self.info.clear();
        let labels = [("model", self.model.clone()), ("device", device.into()), ("version", super::VERSION.into())];
        self.info.get_or_create(&labels).set(1);
    }

    /// Counts an answer.
    pub(super) fn answered(&self, route: &str, status: u16) {
        self.requests.get_or_create(&[("route", route.into()), ("code", status.to_string())]).inc();
    }

    /// Counts a run that ended.
    pub(super) fn ended(&self, how: &str) {
        self.ended.get_or_create(&[("end", how.into())]).inc();
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a string takes any text");
        out
    }
}

fn number(x: f64) -> Gauge<f64, AtomicU64> {
    let gauge = Gauge::default();
    gauge.set(x);
    gauge
}
