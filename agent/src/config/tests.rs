use super::*;

fn no_environment(_: &str) -> Option<String> {
    None
}

fn parsed(text: &str) -> Config {
    Config::parse(text, no_environment).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    Config::parse(text, no_environment).unwrap_err().iter().map(ToString::to_string).collect()
}

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Config::parse(text, lookup)
}

#[test]
fn printed_defaults_read_back_to_the_defaults() {
    assert_eq!(parsed(&default_file()), Config::default());
    assert_eq!(parsed(""), Config::default());
    assert_eq!(parsed("# nothing\n"), Config::default());
    assert_eq!(parsed("export:\n  # endpoint: x\n"), Config::default());
}

#[test]
fn every_key_is_read() {
    let text = r#"
receive: {grpc_listen: "[::1]:1", http_listen: null, unix_listen: /run/x.sock, max_request_bytes: 4MiB}
capture:
  mode: kprobe
  sockets: [{kind: csi, path: /a/*}, {kind: device, path: /b}]
  max_cpu_ratio: 0.05
  ring_bytes: 2097152
  dump_events: /tmp/events
correlate: {hold: 1s, slow_call: 250ms, phase_spans: false, plugin_spans: false, exec_spans: false}
enrich:
  {node_name: n, cluster_name: c, resource_attributes: {a: b, service.name: no}, shim_service: collapse,
   runtime: off, runtime_endpoint: "unix:///run/c.sock", pod_resources: off,
   kubernetes: kubeconfig, kubeconfig: /k, labels: [app, x/*], annotations: ["*"], node_labels: [zone], owner_lookups: true}
export:
  endpoint: http://up:1
  headers: {authorization: Bearer x, n: 1}
  gzip: true
  timeout: 1m
  queue_bytes: 1GiB
  batch_spans: 7
  batch_delay: 0
  drain_timeout: 2500ms
record: {max_bytes: 1MB}
memory: {max_bytes: 2GiB}
admin: {listen: null, metrics_listen: 0.0.0.0:9}
log: {level: "warn,spanlet=debug", json: true}
"#;
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let socket = |kind, path: &str| WatchedSocket { kind, path: path.to_owned() };
    let wanted = Config {
        receive: Receive {
            grpc_listen: Some("[::1]:1".parse().unwrap()),
            http_listen: None,
            unix_listen: Some("/run/x.sock".into()),
            max_request_bytes: 4 << 20,
        },
        capture: Capture {
            mode: CaptureMode::Kprobe,
            sockets: vec![socket(SocketKind::Csi, "/a/*"), socket(SocketKind::DevicePlugin, "/b")],
            max_cpu_ratio: Some(0.05),
            ring_bytes: 2 << 20,
            dump_events: Some("/tmp/events".into()),
        },
        correlate: Correlate {
            hold: Duration::from_secs(1),
            slow_call: Duration::from_millis(250),
            phase_spans: false,
            plugin_spans: false,
            exec_spans: false,
        },
        enrich: Enrich {
            node_name: Some("n".to_owned()),
            cluster_name: Some("c".to_owned()),
            resource_attributes: pairs(&[("a", "b")]),
            shim_service: ShimService::Collapse,
            runtime: Ask::Off,
            runtime_endpoint: Some("/run/c.sock".into()),
            pod_resources: Ask::Off,
            kubernetes: KubernetesAccess::Kubeconfig,
            kubeconfig: Some("/k".into()),
            labels: vec!["app".to_owned(), "x/*".to_owned()],
            annotations: vec!["*".to_owned()],
            node_labels: vec!["zone".to_owned()],
            owner_lookups: true,
        },
        export: Export {
            endpoint: Some("http://up:1".to_owned()),
            headers: pairs(&[("authorization", "Bearer x"), ("n", "1")]),
            gzip: true,
            timeout: Duration::from_secs(60),
            queue_bytes: 1 << 30,
            batch_spans: 7,
            batch_delay: Duration::ZERO,
            drain_timeout: Duration::from_millis(2_500),
        },
        record: Record { max_bytes: 1_000_000 },
        memory: Memory { max_bytes: 2 << 30 },
        admin: Admin { listen: None, metrics_listen: Some("0.0.0.0:9".parse().unwrap()) },
        log: Log { level: "warn,spanlet=debug".to_owned(), json: true },
    };
    assert_eq!(parsed(text), wanted);
    // What is written reads back, also where it is not the default.
    let written: String = keys::SECTIONS
        .iter()
        .flat_map(|section| {
            let keys = section.keys.iter().map(|key| format!("  {}: {}\n", key.name, (key.write)(&wanted)));
            std::iter::once(format!("{}:\n", section.name)).chain(keys)
        })
        .collect();
    assert_eq!(parsed(&written), wanted);
}

#[test]
fn every_problem_is_listed_with_key_and_line() {
    let text = "\
receive:
  grpc_listen: nonsense
  max_request_bytes: 12 parsecs
  prot: 1
recieve: {}
capture:
  mode: ebpf
  ring_bytes: 5000
  sockets:
  - {kind: cri, path: /a}
  - {kind: nri, path: /b}
enrich: {kubernetes: on, labels: [a*b]}
export:
  endpoint: https://up:4317
  headers: {\"a b\": c}
  batch_spans: 0
  timeout: 0s
memory:
  max_bytes: 32MiB
log: 3
";
    assert_eq!(
        problems(text),
        [
            "line 2: receive.grpc_listen: \"nonsense\" is not ADDRESS:PORT, such as 127.0.0.1:4317",
            "line 3: receive.max_request_bytes: \"12 parsecs\" is not a size, such as 16MiB or 16777216",
            "line 4: receive.prot: unknown key; known are grpc_listen, http_listen, unix_listen, max_request_bytes",
            "line 5: recieve: unknown key; known are receive, capture, correlate, enrich, export, record, memory, admin, log",
            "line 7: capture.mode: \"ebpf\" is not one of auto, fentry, kprobe, tracepoint, off",
            "line 9: capture.sockets: kind \"nri\" is not one of cri, csi, dra, device, registration, pod-resources",
            "line 12: enrich.kubernetes: \"on\" is not one of auto, in_cluster, kubeconfig, off",
            "line 12: enrich.labels: \"a*b\" is not a key, or a prefix that ends in *",
            "line 16: export.batch_spans: 0 is not a whole number above 0",
            "line 20: log: is not a mapping",
            "line 8: capture.ring_bytes: 5000 is not a power of two of at least 4KiB",
            "line 14: export.endpoint: \"https://up:4317\": TLS is not supported; use http://",
            "line 15: export.headers: \"a b\" is not a usable header",
            "line 17: export.timeout: 0 would fail every request",
            "line 19: memory.max_bytes: 32 MiB is too little: record.max_bytes, the agent itself and room for spans make at least 56 MiB",
        ]
    );
}

#[test]
fn what_is_no_yaml_mapping_is_told_with_its_line() {
    assert!(problems("receive:\n  a: [\n")[0].starts_with("line "));
    assert!(problems("- a\n- b\n")[0].contains("not a YAML mapping"));
    assert!(problems("log: {}\nlog: {}\n")[0].contains("duplicate"));
}

#[test]
fn environment_wins_over_the_file() {
    let file = "export: {endpoint: 'http://file:1', headers: {a: b}, gzip: true, timeout: 9s}\nenrich: {resource_attributes: {x: file, y: file}}";
    let config = with(
        file,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:2"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:3"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x%3D, n = 1,"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_RESOURCE_ATTRIBUTES", "x=env,service.name=no,z=a%2Cb"),
        ],
    )
    .unwrap();
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(config.export.endpoint.as_deref(), Some("http://traces:3"));
    assert_eq!(config.export.headers, pairs(&[("authorization", "Bearer x="), ("n", "1")]));
    assert!(!config.export.gzip);
    assert_eq!(config.export.timeout, Duration::from_millis(1_500));
    assert_eq!(config.enrich.resource_attributes, pairs(&[("y", "file"), ("x", "env"), ("z", "a,b")]));
}

#[test]
fn node_name_is_the_file_s_then_the_variable_s() {
    let name = |file: &str| with(file, &[("NODE_NAME", "from-pod")]).unwrap().enrich.node_name;
    assert_eq!(name("enrich: {node_name: from-file}").as_deref(), Some("from-file"));
    assert_eq!(name("").as_deref(), Some("from-pod"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "").unwrap();
    let of_host = Config::load(Some(&file), no_environment).unwrap().enrich.node_name;
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(of_host, Some(hostname.trim().to_lowercase()));
}

#[test]
fn the_kubernetes_api_is_asked_where_the_agent_is_a_pod() {
    let access = |file: &str, variables: &[(&str, &str)]| with(file, variables).unwrap().enrich.kubernetes;
    let pod = [("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
    assert_eq!(access("", &pod), KubernetesAccess::InCluster);
    assert_eq!(access("", &[]), KubernetesAccess::Auto);
    assert_eq!(access("enrich: {kubernetes: off}", &pod), KubernetesAccess::Off);
    assert_eq!(access("enrich: {kubernetes: kubeconfig}", &pod), KubernetesAccess::Kubeconfig);
}

#[test]
fn endpoint_without_scheme_follows_insecure() {
    let endpoint = |variables: &[(&str, &str)]| with("", variables).map(|config| config.export.endpoint);
    let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
    assert_eq!(
        endpoint(&[bare, ("OTEL_EXPORTER_OTLP_INSECURE", "True")]),
        Ok(Some("http://collector:4317".to_owned()))
    );
    assert!(endpoint(&[bare]).is_err());
    assert!(
        endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")])
            .is_err()
    );
    assert_eq!(endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None), "an empty variable is no variable");
}

#[test]
fn every_wrong_variable_is_named() {
    let problems = with(
        "export: {gzip: maybe}",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
        ],
    )
    .unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "export.gzip",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "OTEL_RESOURCE_ATTRIBUTES",
        ]
    );
    assert!(!problems.iter().any(|problem| problem.message.contains("secret")), "headers carry secrets");
}
