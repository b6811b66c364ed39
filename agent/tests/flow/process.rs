//! The binary: arguments, exit codes, signals.

use std::path::Path;
use std::process::{Output, Stdio};

use spanlet::config::{Config, default_file};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::codec::CompressionEncoding;

use crate::support::{self, LISTEN, PATIENCE, spans};
use crate::upstream::{Script, Upstream};

fn spanlet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanlet"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

async fn output(command: &mut Command) -> Output {
    tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap()
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("config.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Starts the agent and waits until it has told where it listens.
async fn start(folder: &Path, config: &str) -> (Child, std::net::SocketAddr) {
    let file = write(folder, config);
    let mut child = spanlet(&["run", "--config", &file]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = tokio::time::timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the agent logs where it listens");
            if let Some(rest) = line.split("grpc: Some(").nth(1) {
                return rest.split(')').next().unwrap().parse().unwrap();
            }
        }
    });
    let address = address.await.unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} }); // keeps the pipe from filling up
    (child, address)
}

fn signal(child: &Child, signal: &str) {
    let pid = child.id().unwrap().to_string();
    let status = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_and_sigint_send_what_is_held_and_exit_with_0() {
    for name in ["-TERM", "-INT"] {
        let folder = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let config = format!("{LISTEN}\nexport: {{endpoint: 'http://{}', batch_delay: 1m}}\n", upstream.address);
        let (mut child, address) = start(folder.path(), &config).await;
        let mut client = support::client_to(address).await;
        client.export(spans(0, 10)).await.unwrap();
        assert_eq!(upstream.accepted(), 0, "the batch waits");
        signal(&child, name);
        let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0));
        assert_eq!(upstream.accepted(), 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_upstream_does_not_keep_the_agent_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    upstream.always(Some(Script::Hang));
    let config = format!("{LISTEN}\n{}\n", upstream.export("drain_timeout: 100ms"));
    let (mut child, address) = start(folder.path(), &config).await;
    support::client_to(address).await.export(spans(0, 10)).await.unwrap();
    signal(&child, "-TERM");
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_under_its_limit_when_upstream_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    upstream.always(Some(Script::Hang));
    let config = format!("{LISTEN}\n{}\n", upstream.export("gzip: false"));
    let (child, address) = start(folder.path(), &config).await;
    let small = support::spans_with_text(0, 1_000, &"x".repeat(1_000));
    let large = support::spans_with_text(0, 4_000, &"y".repeat(1_500));
    let senders = (0..16).map(|number| {
        let request = if number % 4 == 0 { large.clone() } else { small.clone() };
        async move {
            let mut client = support::client_to(address).await;
            if number % 2 == 0 {
                client = client.send_compressed(CompressionEncoding::Gzip);
            }
            let mut refused = 0;
            for _ in 0..5 {
                refused += u32::from(client.export(request.clone()).await.is_err());
            }
            refused
        }
    });
    let refused: u32 = futures_util::future::join_all(senders).await.into_iter().sum();
    assert!(refused > 0, "more was sent than fits");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let peak_kib: usize = peak.split(' ').next().unwrap().parse().unwrap();
    let limit_bytes = Config::default().memory.max_bytes;
    assert!(peak_kib << 10 <= limit_bytes, "{peak_kib} KiB at the peak, the limit is {} KiB", limit_bytes >> 10);
}

#[tokio::test]
async fn exit_codes_tell_what_was_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let bad = write(folder.path(), "receive: {port: 1}\nexport:\n  gzip: perhaps\n");
    for command in [&["run", "--config", &bad][..], &["config", "check", &bad]] {
        let output = output(&mut spanlet(command)).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{text}");
        assert!(text.contains("line 1: receive.port: unknown key"), "{text}");
        assert!(text.contains("line 3: export.gzip: \"perhaps\""), "{text}");
    }
    assert_eq!(output(&mut spanlet(&["nonsense"])).await.status.code(), Some(64));
    assert_eq!(output(&mut spanlet(&["run", "--config", "/none/such"])).await.status.code(), Some(64));
    assert_eq!(output(&mut spanlet(&["--version"])).await.status.code(), Some(0));

    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let taken = write(folder.path(), &format!("receive: {{grpc_listen: '{address}', http_listen: null}}"));
    let output = output(&mut spanlet(&["run", "--config", &taken])).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{text}");
    let port = address.port();
    assert!(text.contains(&format!("ss -ltnp 'sport = :{port}'")), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours where nobody looks");
}

#[tokio::test]
async fn default_config_is_printed_and_checks() {
    let printed = output(&mut spanlet(&["config", "default"])).await.stdout;
    let printed = String::from_utf8(printed).unwrap();
    assert_eq!(printed, default_file());
    assert_eq!(Config::parse(&printed, |_| None), Ok(Config::default()));
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &printed);
    let checked = output(&mut spanlet(&["config", "check", &file])).await;
    assert_eq!(checked.status.code(), Some(0));
    let wrong = output(spanlet(&["config", "check", &file]).env("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")).await;
    assert_eq!(wrong.status.code(), Some(64), "the environment is checked too");
    let bash = output(&mut spanlet(&["completions", "bash"])).await.stdout;
    assert!(String::from_utf8(bash).unwrap().contains("config"));
}
