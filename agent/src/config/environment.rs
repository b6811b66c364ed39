//! The OpenTelemetry environment variables (specification, "OpenTelemetry Protocol Exporter" and "Environment Variables").
//!
//! A variable for traces alone wins over the general one; an empty variable is as good as none. Beside them `NODE_NAME`
//! and `KUBERNETES_SERVICE_HOST`, which only say what the file does not.

use std::collections::HashSet;
use std::time::Duration;

use super::error::Problem;
use super::file::check_endpoint;
use super::{Config, KubernetesAccess};

/// Sets what the environment sets, and returns the keys that it has set.
pub(super) fn apply(
    lookup: impl Fn(&str) -> Option<String>,
    config: &mut Config,
    problems: &mut Vec<Problem>,
) -> HashSet<&'static str> {
    let mut environment = Environment { lookup, problems, overridden: HashSet::new() };
    let export = &mut config.export;
    let insecure = environment.exporter("INSECURE", parse_flag, None);
    let endpoint = |text: &str| parse_endpoint(text, insecure.unwrap_or(false));
    if let Some(endpoint) = environment.exporter("ENDPOINT", endpoint, Some("export.endpoint")) {
        export.endpoint = Some(endpoint);
    }
    environment.exporter("PROTOCOL", parse_protocol, None);
    if let Some(headers) = environment.exporter("HEADERS", parse_headers, Some("export.headers")) {
        export.headers = headers;
    }
    if let Some(gzip) = environment.exporter("COMPRESSION", parse_compression, Some("export.gzip")) {
        export.gzip = gzip;
    }
    if let Some(timeout) = environment.exporter("TIMEOUT", parse_timeout, Some("export.timeout")) {
        export.timeout = timeout;
    }
    let enrich = &mut config.enrich;
    if let Some(attributes) = environment.variable("OTEL_RESOURCE_ATTRIBUTES", parse_pairs) {
        for (name, value) in attributes {
            enrich.resource_attributes.retain(|(known, _)| *known != name);
            enrich.resource_attributes.push((name, value));
        }
    }
    enrich.resource_attributes.retain(|(name, _)| !name.starts_with("service."));
    if enrich.node_name.is_none() {
        enrich.node_name = environment.get(NODE_NAME).map(|name| name.trim().to_owned());
    }
    if enrich.kubernetes == KubernetesAccess::Auto && environment.get(IN_CLUSTER).is_some() {
        enrich.kubernetes = KubernetesAccess::InCluster;
    }
    environment.overridden
}

/// By convention a DaemonSet's own `spec.nodeName`, through the downward API.
const NODE_NAME: &str = "NODE_NAME";

/// Set by kubelet in every container that is told of the API server.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// The name that kubelet registers its node by unless it is told another: the host's in lower case.
pub(super) fn node_name_of_host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_lowercase();
    (!name.is_empty()).then_some(name)
}

struct Environment<'a, F> {
    lookup: F,
    problems: &'a mut Vec<Problem>,
    overridden: HashSet<&'static str>,
}

impl<F: Fn(&str) -> Option<String>> Environment<'_, F> {
    /// `OTEL_EXPORTER_OTLP_TRACES_<name>`, else `OTEL_EXPORTER_OTLP_<name>`.
    fn exporter<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        key: Option<&'static str>,
    ) -> Option<T> {
        let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
        let name = names.into_iter().find(|name| self.get(name).is_some())?;
        self.overridden.extend(key);
        self.variable(&name, parse)
    }

    fn variable<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.get(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problems.push(Problem { line: None, key: name.to_owned(), message });
                None
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.trim().is_empty())
    }
}

/// A scheme decides about TLS; without one, `INSECURE` does, whose default is false.
fn parse_endpoint(text: &str, insecure: bool) -> Result<String, String> {
    let text = text.trim();
    let endpoint = match (text.contains("://"), insecure) {
        (true, _) => text.to_owned(),
        (false, true) => format!("http://{text}"),
        (false, false) => {
            return Err(format!(
                "{text:?} has no scheme, which means TLS, and that is not supported; write http://{text}"
            ));
        }
    };
    check_endpoint(&endpoint).map(|()| endpoint)
}

fn parse_protocol(text: &str) -> Result<(), String> {
    match text.trim() {
        "grpc" => Ok(()),
        other => Err(format!("{other:?} is not supported; spans are exported over grpc")),
    }
}

fn parse_flag(text: &str) -> Result<bool, String> {
    // "MUST be set to true only by the case-insensitive string "true""; anything else is false.
    Ok(text.trim().eq_ignore_ascii_case("true"))
}

fn parse_compression(text: &str) -> Result<bool, String> {
    match text.trim() {
        "gzip" => Ok(true),
        "none" => Ok(false),
        other => Err(format!("{other:?} is not gzip or none")),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let milliseconds = text.trim().parse().ok().filter(|milliseconds| *milliseconds > 0);
    milliseconds.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is not a number of milliseconds above 0"))
}

fn parse_headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let headers = parse_pairs(text)?;
    for (name, value) in &headers {
        let usable =
            http::HeaderName::from_bytes(name.as_bytes()).is_ok() && http::HeaderValue::from_str(value).is_ok();
        if !usable {
            return Err(format!("{name:?} is not a usable header"));
        }
    }
    Ok(headers)
}

/// `name=value,name=value`, values percent-encoded as in W3C Baggage.
fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').ok_or_else(|| "is not a list of NAME=VALUE".to_owned())?;
        let name = name.trim();
        let value =
            percent_decoded(value.trim()).ok_or_else(|| format!("the value of {name:?} is wrongly percent-encoded"))?;
        if name.is_empty() { Err("has a value without a name".to_owned()) } else { Ok((name.to_owned(), value)) }
    };
    pairs.map(pair).collect() // messages show no values: headers carry secrets
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>()?;
        let digits =
            std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}
