//! Spans of the runtime's processes.

use super::*;

const CONTAINER: &str = "c1";

fn exec(argv: &[&str], owner: Owner, after_ms: u64, took_ms: Option<u64>) -> Exec {
    let started_ns = START_NS + after_ms * 1_000_000;
    Exec {
        pid: 42,
        parent_pid: 7,
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        cni: Vec::new(),
        started_ns,
        ended_ns: took_ms.map(|ms| started_ns + ms * 1_000_000),
        exit_status: took_ms.map(|_| 0),
        cpu_ns: None,
        owner: Some(owner),
    }
}

#[test]
fn a_process_is_below_the_call_that_started_it() {
    let mut synthesizer = synthesizer("");
    let sandbox = cri("RunPodSandbox", 1, SAMPLED, 3, 0, 200);
    started(&mut synthesizer, &sandbox);
    let mut bridge = exec(&["/usr/lib/cni/bridge"], owner("web", "runtime"), 50, Some(40));
    bridge.cni = vec!["CNI_COMMAND=ADD".to_owned()];
    synthesizer.exec(&bridge);
    finished(&mut synthesizer, &sandbox);
    synthesizer.exec(&exec(&["/usr/bin/runc", "create", "s1"], owner("web", "wire"), 120, Some(60)));

    let spans = made(&mut synthesizer);
    assert_eq!(names(&spans), ["cni bridge ADD", "exec runc create"]);
    for span in &spans {
        let parent = sandbox.traceparent.unwrap();
        assert_eq!((&span.trace_id[..], &span.parent_span_id[..]), (&parent.trace_id[..], &parent.span_id[..]));
        assert_eq!(text(span, "k8s.pod.name").as_deref(), Some("web"));
        assert_eq!(text(span, "process.exit.code").as_deref(), Some("0"));
        assert_eq!(text(span, "process.pid").as_deref(), Some("42"));
    }
    assert_ne!(spans[0].span_id, spans[1].span_id);
}

#[test]
fn of_two_calls_the_containers_own_is_the_parent() {
    let mut synthesizer = synthesizer("");
    let mut start = cri("StartContainer", 1, SAMPLED, 3, 0, 200);
    start.owner = Some(with_container(owner("web", "wire"), CONTAINER));
    started(&mut synthesizer, &start);
    started(&mut synthesizer, &cri("PodSandboxStatus", 2, SAMPLED, 5, 10, 200));
    let its = with_container(owner("web", "wire"), CONTAINER);
    synthesizer.exec(&exec(&["runc", "start", CONTAINER], its, 50, Some(10)));
    assert_eq!(made(&mut synthesizer)[0].trace_id, [1; 16]);
}

#[test]
fn a_process_that_failed_says_so() {
    let mut synthesizer = synthesizer("");
    started(&mut synthesizer, &cri("StartContainer", 1, SAMPLED, 3, 0, 200));
    for (status, code) in [(1 << 8, "1"), (9, "137")] {
        let failed = Exec { exit_status: Some(status), ..exec(&["runc", "start"], owner("web", "wire"), 5, Some(5)) };
        synthesizer.exec(&failed);
        let span = made(&mut synthesizer).remove(0);
        assert_eq!(text(&span, "process.exit.code").as_deref(), Some(code));
        assert_eq!(span.status.unwrap().code, 2);
    }
}

#[test]
fn what_no_sampled_call_started_has_no_span() {
    let mut synthesizer = synthesizer("");
    let runc = |pod: &str, after_ms: u64, took_ms: Option<u64>| {
        exec(&["runc", "create", "s1"], owner(pod, "wire"), after_ms, took_ms)
    };
    finished(&mut synthesizer, &cri("StartContainer", 1, SAMPLED, 3, 100, 100));
    finished(&mut synthesizer, &cri("StopContainer", 2, 0, 5, 1_000, 100));
    for (process, why) in [
        (runc("web", 50, Some(10)), "before the call"),
        (runc("web", 250, Some(10)), "after the call"),
        (runc("web", 1_050, Some(10)), "under a call that was not sampled"),
        (runc("api", 150, Some(10)), "of another pod"),
        (runc("web", 150, None), "still running"),
        (runc("web", 150, Some(5_000)), "it outlives the call, as a shim does"),
        (Exec { owner: None, ..runc("web", 150, Some(10)) }, "of nobody"),
    ] {
        synthesizer.exec(&process);
        assert_eq!(made(&mut synthesizer), [], "{why}");
    }
    synthesizer.exec(&runc("web", 150, Some(10)));
    assert_eq!(made(&mut synthesizer).len(), 1);
}
