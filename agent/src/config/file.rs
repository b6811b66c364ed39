//! Reads the YAML file, key by key, so that every problem is found at once.

use std::collections::HashSet;

use serde_yaml::{Mapping, Value};

use super::error::Problem;
use super::keys::{Key, SECTIONS, Section};
use super::line::line_of;
use super::{BASE_BYTES, Config};

/// Sets what the file sets and returns what is wrong with the rest.
pub(super) fn apply(text: &str, config: &mut Config) -> Vec<Problem> {
    let sections = match serde_yaml::from_str::<Option<Mapping>>(text) {
        Ok(sections) => sections.unwrap_or_default(),
        Err(error) => {
            let line = error.location().map(|place| place.line());
            return vec![Problem { line, key: String::new(), message: format!("not a YAML mapping: {error}") }];
        }
    };
    let mut problems = Vec::new();
    for (name, keys) in &sections {
        let Some(section) = SECTIONS.iter().find(|section| name.as_str() == Some(section.name)) else {
            let known = SECTIONS.iter().map(|section| section.name);
            problems.push(unknown(text, &[&label(name)], known));
            continue;
        };
        apply_section(text, section, keys, config, &mut problems);
    }
    problems
}

fn apply_section(text: &str, section: &Section, keys: &Value, config: &mut Config, problems: &mut Vec<Problem>) {
    let empty = Mapping::new();
    let keys = match keys {
        Value::Mapping(keys) => keys,
        Value::Null => &empty, // a section of which every key is commented out
        _ => return problems.push(problem(text, &[section.name], "is not a mapping".to_owned())),
    };
    for (name, value) in keys {
        let Some(key) = section.keys.iter().find(|key| name.as_str() == Some(key.name)) else {
            problems.push(unknown(text, &[section.name, &label(name)], section.keys.iter().map(|key| key.name)));
            continue;
        };
        if let Err(message) = (key.read)(value, config) {
            problems.push(problem(text, &[section.name, key.name], message));
        }
    }
}

/// Checks what no single key can tell. Keys in `overridden` came from the environment and have no line.
pub(super) fn check(text: &str, config: &Config, overridden: &HashSet<&str>, problems: &mut Vec<Problem>) {
    let mut wrong = |path: [&str; 2], message: String| {
        let key = path.join(".");
        let known = problems.iter().any(|problem| problem.key == key);
        if !known && !overridden.contains(key.as_str()) {
            problems.push(problem(text, &path, message));
        }
    };
    let ring_bytes = config.capture.ring_bytes;
    if !ring_bytes.is_power_of_two() || ring_bytes < 4096 {
        wrong(["capture", "ring_bytes"], format!("{ring_bytes} is not a power of two of at least 4KiB"));
    }
    if let Some(Err(message)) = config.export.endpoint.as_deref().map(check_endpoint) {
        wrong(["export", "endpoint"], message);
    }
    for (name, value) in &config.export.headers {
        let usable =
            http::HeaderName::from_bytes(name.as_bytes()).is_ok() && http::HeaderValue::from_str(value).is_ok();
        if !usable {
            wrong(["export", "headers"], format!("{name:?} is not a usable header"));
        }
    }
    if config.export.timeout.is_zero() {
        wrong(["export", "timeout"], "0 would fail every request".to_owned());
    }
    if config.receive.max_request_bytes == 0 {
        wrong(["receive", "max_request_bytes"], "0 would refuse every request".to_owned());
    }
    if config.export.queue_bytes == 0 {
        wrong(["export", "queue_bytes"], "0 would refuse every request".to_owned());
    }
    let least = config.record.max_bytes.saturating_add(BASE_BYTES + LEAST_SPAN_BYTES);
    if config.memory.max_bytes < least {
        let message = format!(
            "{} MiB is too little: record.max_bytes, the agent itself and room for spans make at least {} MiB",
            config.memory.max_bytes >> 20,
            least.div_ceil(1 << 20)
        );
        wrong(["memory", "max_bytes"], message);
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level) {
        wrong(["log", "level"], format!("{:?} is not a log filter: {error}", config.log.level));
    }
}

/// With less than this a few usual requests of kubelet (512 spans, 0.3 MiB) would fill the agent.
const LEAST_SPAN_BYTES: usize = 8 << 20;

/// Whether spans can be sent there.
pub(super) fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let uri: http::Uri = endpoint.parse().map_err(|error| format!("{endpoint:?} is not a URL: {error}"))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        Some("https") => Err(format!("{endpoint:?}: TLS is not supported; use http://")),
        _ => Err(format!("{endpoint:?} is not of the form http://HOST:PORT")),
    }
}

fn unknown<'a>(text: &str, path: &[&str], known: impl Iterator<Item = &'a str>) -> Problem {
    let known: Vec<&str> = known.collect();
    problem(text, path, format!("unknown key; known are {}", known.join(", ")))
}

fn problem(text: &str, path: &[&str], message: String) -> Problem {
    Problem { line: line_of(text, path), key: path.join("."), message }
}

fn label(key: &Value) -> String {
    match key {
        Value::String(name) => name.clone(),
        other => serde_yaml::to_string(other).map_or_else(|_| "?".to_owned(), |text| text.trim_end().to_owned()),
    }
}

// Used only here and in the generated file: keeps `Key` from growing accessors.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
