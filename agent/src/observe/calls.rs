//! Metrics of the calls on watched sockets: how many, how long, and where the time went.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::registry::{Registry, Unit};

use super::labels::{Label, Phase};

/// Distinct `rpc_method` values. CRI, CSI, DRA and the plugin services have about 80 methods together; a server that
/// makes up names must not grow the exposition without end. Further names become `_OTHER`, as the RPC conventions say.
const METHODS_MAX: usize = 256;
const OTHER_METHOD: &str = "_OTHER";

/// Bounds in seconds: 100 µs (a status call) to 300 s (an image pull), three a decade.
const BUCKETS_SECONDS: [f64; 20] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
    120.0, 300.0,
];

/// One finished call, in the terms of its metrics.
#[derive(Debug, Clone, Copy)]
pub struct CallSample<'a> {
    pub socket_kind: &'static str,
    pub naming: &'static str,
    /// `package.Service/Method`; `None` while unnamed.
    pub method: Option<&'a str>,
    /// gRPC status code; `None` if not seen.
    pub status_code: Option<u8>,
    /// `None` if its end was not seen.
    pub duration_ns: Option<u64>,
    /// In the order of [`Phase::ALL`]; `None` where not measured.
    pub phases_ns: [Option<u64>; 4],
    pub trace_id: Option<[u8; 16]>,
}

type Labels<const N: usize> = [(&'static str, String); N];
type Exemplar = [(&'static str, String); 1];
type Durations<const N: usize> = Family<Labels<N>, HistogramWithExemplars<Exemplar>, Buckets>;

#[derive(Debug)]
pub(super) struct CallMetrics {
    calls: Family<[(&'static str, &'static str); 2], Counter>,
    duration: Durations<3>,
    phase: Durations<2>,
    methods: Mutex<HashSet<String>>,
}

#[derive(Debug, Clone, Copy)]
struct Buckets;

impl MetricConstructor<HistogramWithExemplars<Exemplar>> for Buckets {
    fn new_metric(&self) -> HistogramWithExemplars<Exemplar> {
        HistogramWithExemplars::new(BUCKETS_SECONDS.into_iter())
    }
}

// === impl CallMetrics ===

impl CallMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let calls = Family::default();
        registry.register("calls", "gRPC calls seen on watched unix sockets", calls.clone());
        let duration = Durations::new_with_constructor(Buckets);
        let help = "From the request's first byte written to the response's last byte read";
        registry.register_with_unit("call_duration", help, Unit::Seconds, duration.clone());
        let phase = Durations::new_with_constructor(Buckets);
        registry.register_with_unit("call_phase", "The four parts of a call", Unit::Seconds, phase.clone());
        Self { calls, duration, phase, methods: Mutex::default() }
    }

    pub(super) fn observe(&self, sample: &CallSample<'_>) {
        let labels = [("socket_kind", sample.socket_kind), ("naming", sample.naming)];
        self.calls.get_or_create(&labels).inc();
        let method = self.bounded(sample.method);
        let status = sample.status_code.map_or("unknown", status_name);
        let exemplar = || sample.trace_id.map(|id| [("trace_id", hex(&id))]);
        if let Some(nanoseconds) = sample.duration_ns {
            let labels = [
                ("socket_kind", sample.socket_kind.to_owned()),
                ("rpc_method", method.clone()),
                ("rpc_status_code", status.to_owned()),
            ];
            self.duration.get_or_create(&labels).observe(seconds(nanoseconds), exemplar(), None);
        }
        for (phase, nanoseconds) in Phase::ALL.iter().zip(sample.phases_ns) {
            if let Some(nanoseconds) = nanoseconds {
                let labels = [(Phase::NAME, phase.label().to_owned()), ("rpc_method", method.clone())];
                self.phase.get_or_create(&labels).observe(seconds(nanoseconds), exemplar(), None);
            }
        }
    }

    fn bounded(&self, method: Option<&str>) -> String {
        let Some(method) = method else { return String::new() };
        let mut known = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(method) {
            if known.len() >= METHODS_MAX {
                return OTHER_METHOD.to_owned();
            }
            known.insert(method.to_owned());
        }
        method.to_owned()
    }
}

/// The spelling of the RPC semantic conventions.
fn status_name(code: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("other")
}

fn seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}

fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn sample(method: Option<&str>) -> CallSample<'_> {
        CallSample {
            socket_kind: "cri",
            naming: "wire",
            method,
            status_code: Some(0),
            duration_ns: Some(3_000_000),
            phases_ns: [Some(1_000_000), Some(2_000_000), None, None],
            trace_id: Some([0xab; 16]),
        }
    }

    fn exposition(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_call_is_counted_timed_and_linked_to_its_trace() {
        let mut registry = Registry::default();
        let metrics = CallMetrics::register(&mut registry);
        metrics.observe(&sample(Some("runtime.v1.RuntimeService/Version")));
        let text = exposition(&registry);
        let trace = "ab".repeat(16);
        for line in [
            r#"calls_total{socket_kind="cri",naming="wire"} 1"#.to_owned(),
            r#"call_duration_seconds_count{socket_kind="cri",rpc_method="runtime.v1.RuntimeService/Version",rpc_status_code="OK"} 1"#.to_owned(),
            r#"call_phase_seconds_count{phase="handling",rpc_method="runtime.v1.RuntimeService/Version"} 1"#.to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains(&format!("# {{trace_id=\"{trace}\"}} 0.003")), "{text}");
        assert!(!text.contains("response_wait"), "a phase that was not measured must not appear");
    }

    #[test]
    fn a_call_whose_end_was_lost_is_counted_and_has_no_duration() {
        let mut registry = Registry::default();
        let metrics = CallMetrics::register(&mut registry);
        metrics.observe(&CallSample { duration_ns: None, status_code: None, ..sample(Some("s/m")) });
        let text = exposition(&registry);
        assert!(text.contains(r#"calls_total{socket_kind="cri",naming="wire"} 1"#), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("call_duration_seconds_count")), "{text}");
    }

    #[test]
    fn method_names_are_bounded() {
        let mut registry = Registry::default();
        let metrics = CallMetrics::register(&mut registry);
        for number in 0..2 * METHODS_MAX {
            metrics.observe(&sample(Some(&format!("made.up.Service/Method{number}"))));
        }
        let text = exposition(&registry);
        let series = text.lines().filter(|line| line.starts_with("call_duration_seconds_count")).count();
        assert_eq!(series, METHODS_MAX + 1);
        assert!(text.contains(&format!("rpc_method=\"{OTHER_METHOD}\"")));
    }
}
