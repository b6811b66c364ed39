//! What `spanlet pod` draws, to the character.

use spanlet::api::{PodState, PodTimeline};
use spanlet::cli::render::{Terminal, waterfall};

use crate::timelines::slow_pull;

fn drawn(timeline: &PodTimeline, width: usize, colours: bool, all: bool) -> String {
    let mut out = Vec::new();
    let terminal = Terminal { width, colours, is_terminal: colours };
    waterfall::write(&mut out, timeline, &terminal, all).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn on_80_columns() {
    let text = drawn(&slow_pull(), 80, false, false);
    assert!(text.lines().all(|line| line.chars().count() <= 80 || line.starts_with("not shown")), "{text}");
    assert_eq!(text, ON_80);
}

#[test]
fn on_120_columns_with_all() {
    assert_eq!(drawn(&slow_pull(), 120, false, true), ON_120_WITH_ALL);
}

#[test]
fn colours_change_nothing_but_colours() {
    let mut plain = String::new();
    let coloured = drawn(&slow_pull(), 80, true, false);
    assert!(coloured.contains("\x1b[32mstarted\x1b[0m"), "{coloured}");
    for (index, part) in coloured.split('\x1b').enumerate() {
        plain.push_str(if index == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    assert_eq!(plain, ON_80);
}

#[test]
fn a_pod_that_is_starting_says_so() {
    let mut timeline = slow_pull();
    timeline.summary.state = PodState::Starting;
    timeline.summary.duration_seconds = 11.0;
    timeline.entries.retain(|entry| entry.name.ends_with("PullImage") && entry.depth == 1);
    timeline.entries.retain(|entry| entry.kind == spanlet::api::EntryKind::Cri);
    timeline.entries[0].end_unix_nano = crate::timelines::BEGIN_NS + 11_000_000_000;
    timeline.entries[0].attributes.insert("running".into(), true.into());
    let text = drawn(&timeline, 80, false, false);
    let lines: Vec<_> = text.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "state    starting",
            "started  2026-11-22T03:28:27.700000000Z",
            "took     11.0 s so far, 98.3 % accounted for",
            "",
            "0                    11.0 s",
            "                       ████    PullImage                                  1.59 s",
            "                                 image docker.io/library/web:1 · still running",
        ]
    );
}

#[test]
fn a_process_that_failed_says_how() {
    for (key, number, told) in [("exit_code", 2, "failed with exit code 2"), ("signal", 9, "killed by signal 9")] {
        let mut timeline = slow_pull();
        let exec = timeline.entries.iter_mut().find(|entry| entry.kind == spanlet::api::EntryKind::Exec).unwrap();
        exec.attributes.insert("error".into(), true.into());
        exec.attributes.insert(key.into(), number.into());
        assert!(drawn(&timeline, 120, false, false).contains(told), "{told}");
    }
}

#[test]
fn names_off_the_wire_cannot_steer_the_terminal() {
    let mut timeline = slow_pull();
    for entry in &mut timeline.entries {
        entry.name.push_str("\x1b[2J");
        entry.attributes.insert("image".into(), "evil\x1b]0;title\x07".into());
    }
    assert!(!drawn(&timeline, 80, false, true).chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn long_images_break_and_nothing_is_too_narrow() {
    let mut timeline = slow_pull();
    let image = format!("registry.example.com/team/image@sha256:{}", "0123456789abcdef".repeat(4));
    for entry in &mut timeline.entries {
        entry.attributes.insert("image".into(), image.clone().into());
    }
    for width in [60, 61, 79, 200] {
        let text = drawn(&timeline, width, false, true);
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
    }
}

#[test]
fn services_inside_of_a_call_are_named() {
    let mut timeline = slow_pull();
    timeline.entries.retain(|entry| entry.name == "metadata.sandbox.Create");
    timeline.entries[0].name = "containerd.task.v3.Task/Create".into();
    assert!(drawn(&timeline, 80, false, true).contains("  Task/Create "));
}

#[test]
fn a_start_without_length_is_drawn() {
    let mut timeline = slow_pull();
    timeline.summary.duration_seconds = 0.0;
    assert!(drawn(&timeline, 80, false, true).contains("took     0 ns"));
    timeline.entries.clear();
    assert!(drawn(&timeline, 80, false, true).contains("took     0 ns"));
}

const ON_80: &str = "\
pod      default/web-7d9c
uid      e85e4dbe-cd45-3b8b-6d83-db1c63ff927d
state    started
started  2026-11-22T03:28:27.700000000Z
took     12.5 s, 98.3 % accounted for

0                    12.5 s
░░░░░░░░░░░░░░░░░░░░░░░░░░░  syncPod                                      12.6 s
·                              gap                                        100 ms
                                 after start of syncPod
                                 before NodePublishVolume
█                            csi NodePublishVolume                        300 ms
████                           RunPodSandbox                              1.00 s
                                 request wait 132 µs · handling 999 ms
                                 response wait 90.0 µs · client overhead 510 µs
 ▓▓                              cni bridge ADD                           300 ms
   █                           ImageStatus                               1.00 ms
                                 handling 700 µs · response wait 90.0 µs
                                 client overhead 510 µs
   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒          wait                                       8.00 s
                                 for the image pull of default/big
                                 image docker.io/library/big:1
                    ██████     PullImage                                  2.59 s
                                 image docker.io/library/web:1
                         ··    gap                                        100 ms
                                 after PullImage · before CreateContainer
                          █    CreateContainer web                       10.0 ms
                                 failed with gRPC status 2
                          █    CreateContainer web                       90.0 ms
                          █    StartContainer web                         300 ms
not shown: 1 shorter gap of 10.0 ms in all, 1 shorter inner step (--all shows them)

after the start
                    +30.0 s  StopContainer                                1.00 s
";

const ON_120_WITH_ALL: &str = "\
pod      default/web-7d9c
uid      e85e4dbe-cd45-3b8b-6d83-db1c63ff927d
state    started
started  2026-11-22T03:28:27.700000000Z
took     12.5 s, 98.3 % accounted for

0                                                     12.5 s
░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  syncPod                                             12.6 s
·                                                               gap                                               100 ms
                                                                  after start of syncPod · before NodePublishVolume
██                                                            csi NodePublishVolume                               300 ms
 ██████                                                         RunPodSandbox                                     1.00 s
                                                                  request wait 132 µs · handling 999 ms
                                                                  response wait 90.0 µs · client overhead 510 µs
   ▓▓                                                             cni bridge ADD                                  300 ms
 █                                                                metadata.sandbox.Create                        1.00 ms
      █                                                         ImageStatus                                      1.00 ms
                                                                  handling 700 µs · response wait 90.0 µs
                                                                  client overhead 510 µs
      ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒                  wait                                              8.00 s
                                                                  for the image pull of default/big
                                                                  image docker.io/library/big:1
                                             ·                  gap                                              10.0 ms
                                                                  after ImageStatus · before PullImage
                                             █████████████      PullImage                                         2.59 s
                                                                  image docker.io/library/web:1
                                                         ··     gap                                               100 ms
                                                                  after PullImage · before CreateContainer
                                                          █     CreateContainer web                              10.0 ms
                                                                  failed with gRPC status 2
                                                          █     CreateContainer web                              90.0 ms
                                                          ██    StartContainer web                                300 ms

after the start
                                                     +30.0 s  StopContainer                                       1.00 s
";
