//! How each kind of value is written in YAML.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::Value;

use super::{Ask, CaptureMode, KubernetesAccess, ShimService, WatchedSocket};
use crate::call::SocketKind;

/// Reads and writes values of type `T`.
pub(super) trait Codec<T> {
    /// # Errors
    /// What is wrong with the value, for the person who wrote it.
    fn read(value: &Value) -> Result<T, String>;
    /// The value as YAML, on one line.
    fn write(value: &T) -> String;
}

pub(super) struct Address;
pub(super) struct Text;
pub(super) struct File;
pub(super) struct UnixSocket;
pub(super) struct Flag;
pub(super) struct Count;
pub(super) struct Bytes;
pub(super) struct Time;
pub(super) struct Ratio;
pub(super) struct Pairs;
pub(super) struct Mode;
pub(super) struct Shim;
pub(super) struct Asking;
pub(super) struct Access;
/// Names of labels or annotations, or their prefixes.
pub(super) struct Keys;
pub(super) struct Sockets;
/// A value that may be `null`.
pub(super) struct Optional<C>(std::marker::PhantomData<C>);

impl<T, C: Codec<T>> Codec<Option<T>> for Optional<C> {
    fn read(value: &Value) -> Result<Option<T>, String> {
        if value.is_null() { Ok(None) } else { C::read(value).map(Some) }
    }

    fn write(value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| "null".to_owned(), C::write)
    }
}

impl Codec<SocketAddr> for Address {
    fn read(value: &Value) -> Result<SocketAddr, String> {
        let text = text(value)?;
        text.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT, such as 127.0.0.1:4317"))
    }

    fn write(value: &SocketAddr) -> String {
        quoted(&value.to_string())
    }
}

impl Codec<String> for Text {
    fn read(value: &Value) -> Result<String, String> {
        text(value)
    }

    fn write(value: &String) -> String {
        quoted(value)
    }
}

impl Codec<PathBuf> for File {
    fn read(value: &Value) -> Result<PathBuf, String> {
        let path = PathBuf::from(text(value)?);
        if path.is_absolute() { Ok(path) } else { Err(format!("{} is not an absolute path", path.display())) }
    }

    fn write(value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
}

/// As kubelet's configuration spells it, `unix:///run/x.sock`, or as a path.
impl Codec<PathBuf> for UnixSocket {
    fn read(value: &Value) -> Result<PathBuf, String> {
        let text = text(value)?;
        File::read(&Value::from(text.strip_prefix("unix://").unwrap_or(&text)))
    }

    fn write(value: &PathBuf) -> String {
        File::write(value)
    }
}

impl Codec<bool> for Flag {
    fn read(value: &Value) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| format!("{} is not true or false", shown(value)))
    }

    fn write(value: &bool) -> String {
        value.to_string()
    }
}

impl Codec<usize> for Count {
    fn read(value: &Value) -> Result<usize, String> {
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.filter(|count| *count > 0).ok_or_else(|| format!("{} is not a whole number above 0", shown(value)))
    }

    fn write(value: &usize) -> String {
        value.to_string()
    }
}

const UNITS: [(&str, u64); 6] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];

impl Codec<usize> for Bytes {
    fn read(value: &Value) -> Result<usize, String> {
        let wrong = || format!("{} is not a size, such as 16MiB or 16777216", shown(value));
        let bytes = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => {
                let (number, unit) = split_unit(text);
                let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
                number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit))
            }
            _ => None,
        };
        bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(wrong)
    }

    fn write(value: &usize) -> String {
        let binary = UNITS[..3].iter().rev().find(|(_, unit)| *value > 0 && (*value as u64).is_multiple_of(*unit));
        binary.map_or_else(|| value.to_string(), |(name, unit)| format!("{}{name}", *value as u64 / unit))
    }
}

impl Codec<u32> for Bytes {
    fn read(value: &Value) -> Result<u32, String> {
        let bytes: usize = Self::read(value)?;
        u32::try_from(bytes).map_err(|_| format!("{} is too large", shown(value)))
    }

    fn write(value: &u32) -> String {
        Self::write(&(*value as usize))
    }
}

const TIME_UNITS: [(&str, u64); 5] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];

impl Codec<Duration> for Time {
    fn read(value: &Value) -> Result<Duration, String> {
        let wrong = || format!("{} is not a time, such as 200ms or 5s", shown(value));
        let microseconds = match value {
            Value::Number(number) if number.as_u64() == Some(0) => Some(0),
            Value::String(text) => {
                let (number, unit) = split_unit(text);
                let unit = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, length)| *length);
                number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit))
            }
            _ => None,
        };
        microseconds.map(Duration::from_micros).ok_or_else(wrong)
    }

    fn write(value: &Duration) -> String {
        let microseconds = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        // Seconds at most: 90s reads better than 1.5m would.
        let unit =
            TIME_UNITS[..3].iter().rev().find(|(_, unit)| microseconds > 0 && microseconds.is_multiple_of(*unit));
        unit.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", microseconds / unit))
    }
}

impl Codec<f64> for Ratio {
    fn read(value: &Value) -> Result<f64, String> {
        let ratio = value.as_f64().filter(|ratio| *ratio > 0.0 && *ratio <= 1.0);
        ratio.ok_or_else(|| format!("{} is not a number above 0 and at most 1", shown(value)))
    }

    fn write(value: &f64) -> String {
        value.to_string()
    }
}

impl Codec<Vec<(String, String)>> for Pairs {
    fn read(value: &Value) -> Result<Vec<(String, String)>, String> {
        let wrong = || format!("{} is not a mapping of names to texts", shown(value));
        let pair = |(name, text): (&Value, &Value)| Some((name.as_str()?.to_owned(), scalar(text)?));
        value.as_mapping().and_then(|pairs| pairs.iter().map(pair).collect()).ok_or_else(wrong)
    }

    fn write(value: &Vec<(String, String)>) -> String {
        let pairs: Vec<String> =
            value.iter().map(|(name, text)| format!("{}: {}", quoted(name), quoted(text))).collect();
        format!("{{{}}}", pairs.join(", "))
    }
}

const MODES: [(&str, CaptureMode); 5] = [
    ("auto", CaptureMode::Auto),
    ("fentry", CaptureMode::Fentry),
    ("kprobe", CaptureMode::Kprobe),
    ("tracepoint", CaptureMode::Tracepoint),
    ("off", CaptureMode::Off),
];

impl Codec<CaptureMode> for Mode {
    fn read(value: &Value) -> Result<CaptureMode, String> {
        choice(bare_off(value).as_ref().unwrap_or(value), &MODES)
    }

    fn write(value: &CaptureMode) -> String {
        name_of(*value, &MODES)
    }
}

const SHIM_SERVICES: [(&str, ShimService); 2] = [("keep", ShimService::Keep), ("collapse", ShimService::Collapse)];

impl Codec<ShimService> for Shim {
    fn read(value: &Value) -> Result<ShimService, String> {
        choice(value, &SHIM_SERVICES)
    }

    fn write(value: &ShimService) -> String {
        name_of(*value, &SHIM_SERVICES)
    }
}

const ASKS: [(&str, Ask); 2] = [("auto", Ask::Auto), ("off", Ask::Off)];

impl Codec<Ask> for Asking {
    fn read(value: &Value) -> Result<Ask, String> {
        choice(bare_off(value).as_ref().unwrap_or(value), &ASKS)
    }

    fn write(value: &Ask) -> String {
        name_of(*value, &ASKS)
    }
}

const ACCESSES: [(&str, KubernetesAccess); 4] = [
    ("auto", KubernetesAccess::Auto),
    ("in_cluster", KubernetesAccess::InCluster),
    ("kubeconfig", KubernetesAccess::Kubeconfig),
    ("off", KubernetesAccess::Off),
];

impl Codec<KubernetesAccess> for Access {
    fn read(value: &Value) -> Result<KubernetesAccess, String> {
        choice(bare_off(value).as_ref().unwrap_or(value), &ACCESSES)
    }

    fn write(value: &KubernetesAccess) -> String {
        name_of(*value, &ACCESSES)
    }
}

/// YAML 1.1 readers take a bare `off` for false; ours does not, but files are edited by others too.
fn bare_off(value: &Value) -> Option<Value> {
    (value.as_bool() == Some(false)).then(|| Value::from("off"))
}

impl Codec<Vec<String>> for Keys {
    fn read(value: &Value) -> Result<Vec<String>, String> {
        let keys = value.as_sequence().ok_or_else(|| format!("{} is not a list of keys", shown(value)))?;
        let key = |value: &Value| {
            let key = text(value)?;
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
            let name = key.strip_suffix('*').unwrap_or(&key);
            let is_key = !key.is_empty() && name.bytes().all(allowed);
            if is_key { Ok(key) } else { Err(format!("{key:?} is not a key, or a prefix that ends in *")) }
        };
        keys.iter().map(key).collect()
    }

    fn write(value: &Vec<String>) -> String {
        let keys: Vec<String> = value.iter().map(|key| quoted(key)).collect();
        format!("[{}]", keys.join(", "))
    }
}

fn choice<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Result<T, String> {
    let chosen = choices.iter().find(|(name, _)| value.as_str() == Some(*name));
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    chosen.map(|(_, choice)| *choice).ok_or_else(|| format!("{} is not one of {}", shown(value), names()))
}

fn name_of<T: Copy + PartialEq>(value: T, choices: &[(&str, T)]) -> String {
    choices.iter().find(|(_, choice)| *choice == value).map(|(name, _)| quoted(name)).unwrap_or_default()
}

impl Codec<Vec<WatchedSocket>> for Sockets {
    fn read(value: &Value) -> Result<Vec<WatchedSocket>, String> {
        let sockets = value.as_sequence().ok_or_else(|| format!("{} is not a list of {{kind, path}}", shown(value)))?;
        sockets.iter().map(socket).collect()
    }

    fn write(value: &Vec<WatchedSocket>) -> String {
        let one = |socket: &WatchedSocket| {
            format!("\n    - {{kind: {}, path: {}}}", socket.kind.label(), quoted(&socket.path))
        };
        if value.is_empty() { "[]".to_owned() } else { value.iter().map(one).collect() }
    }
}

fn socket(value: &Value) -> Result<WatchedSocket, String> {
    let field = |name: &str| value.get(name).and_then(Value::as_str);
    let (Some(kind), Some(path), Some(2)) =
        (field("kind"), field("path"), value.as_mapping().map(serde_yaml::Mapping::len))
    else {
        return Err(format!("{} is not {{kind: …, path: …}}", shown(value)));
    };
    let kinds = SocketKind::ALL.map(SocketKind::label);
    let known = SocketKind::ALL.into_iter().find(|known| known.label() == kind);
    let kind = known.ok_or_else(|| format!("kind {kind:?} is not one of {}", kinds.join(", ")))?;
    if !path.starts_with('/') || path.trim_end_matches('*').contains('*') {
        return Err(format!("{path:?} is not an absolute path, or one that ends in *"));
    }
    Ok(WatchedSocket { kind, path: path.to_owned() })
}

/// `16MiB` as 16 and `MiB`.
fn split_unit(text: &str) -> (Option<u64>, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number.parse().ok(), unit.trim_start())
}

fn text(value: &Value) -> Result<String, String> {
    scalar(value).ok_or_else(|| format!("{} is not a text", shown(value)))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A JSON string is a YAML double-quoted one.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/.".contains(&byte);
    let ambiguous = ["true", "false", "null", "off", "on", "yes", "no", "y", "n", ""];
    let is_name =
        text.bytes().all(plain) && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    if is_name && !ambiguous.contains(&text) { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Mapping(_) | Value::Tagged(_) => "a mapping".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Null => "null".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
    }
}
