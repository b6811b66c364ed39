//! Identity in the log lines that runtimes attach to their spans as events.
//!
//! containerd logs the metadata message itself, so there are two spellings: gogo's `&PodSandboxMetadata{Name:web,…}` up to
//! 2.1, and prototext `name:"web" uid:"…"` since 2.2, whose spacing is random on purpose. CRI-O writes
//! `namespace/pod/container`, never the uid.

use super::names::is_id;
use super::source::PodName;

/// What one line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told<'a> {
    pub(super) pod: Option<PodName<'a>>,
    pub(super) sandbox_id: Option<&'a str>,
    pub(super) container_id: Option<&'a str>,
    pub(super) container_name: Option<&'a str>,
    /// A sandbox or a container is being made, which only kubelet's `syncPod` asks for.
    pub(super) creates: bool,
}

/// Reads a line of containerd's CRI service, which is the name of the event.
pub(super) fn containerd(line: &str) -> Option<Told<'_>> {
    let (operation, rest) = line.split_once(' ')?;
    match operation {
        "RunPodSandbox" => run_pod_sandbox(rest.strip_prefix("for ")?),
        "CreateContainer" => create_container(rest.strip_prefix("within sandbox ")?),
        "StopPodSandbox" | "RemovePodSandbox" | "PodSandboxStatus" | "PodSandboxStats" | "Portforward" => {
            Some(Told { sandbox_id: quoted_id(rest.strip_prefix("for ")?), ..Told::default() })
        }
        "StartContainer"
        | "StopContainer"
        | "RemoveContainer"
        | "ContainerStatus"
        | "ContainerStats"
        | "Exec"
        | "ExecSync"
        | "Attach"
        | "UpdateContainerResources"
        | "ReopenContainerLog" => Some(Told { container_id: quoted_id(rest.strip_prefix("for ")?), ..Told::default() }),
        "Stop" => Some(Told { container_id: quoted_id(rest.strip_prefix("container ")?), ..Told::default() }),
        "TearDown" => {
            Some(Told { sandbox_id: quoted_id(rest.strip_prefix("network for sandbox ")?), ..Told::default() })
        }
        _ => None,
    }
}

/// Reads a line of CRI-O, which is the attribute `log.message` of an event named `log`.
pub(super) fn crio(line: &str) -> Option<Told<'_>> {
    let (head, tail) = line.split_once(": ")?;
    let id = head.split(' ').find(|word| is_id(word)).or_else(|| tail.split(' ').next().filter(|word| is_id(word)));
    let description = tail.split(' ').next().and_then(description);
    let creates = ["Running ", "Ran ", "Creating ", "Created "].iter().any(|verb| head.starts_with(verb));
    let is_sandbox = description.is_some_and(|(_, container)| container == INFRA_CONTAINER);
    if is_sandbox || head.contains("pod sandbox") {
        return Some(Told { pod: description.map(|(pod, _)| pod), sandbox_id: id, creates, ..Told::default() });
    }
    if head.contains(" container") {
        let pod = description.map(|(pod, _)| pod);
        let container_name = description.map(|(_, container)| container);
        return Some(Told { pod, container_id: id, container_name, creates, ..Told::default() });
    }
    None
}

/// CRI-O's name for the container that holds a sandbox; its id is the sandbox's.
const INFRA_CONTAINER: &str = "POD";

/// `<metadata>` or `<metadata> returns sandbox id "<id>"`.
fn run_pod_sandbox(rest: &str) -> Option<Told<'_>> {
    let pod = metadata_field(rest, "name").zip(metadata_field(rest, "uid")).map(|(name, uid)| PodName {
        namespace: metadata_field(rest, "namespace").unwrap_or_default(),
        name,
        uid,
    });
    let sandbox_id = rest.split_once(" returns sandbox id ").and_then(|(_, id)| quoted_id(id));
    Some(Told { pod, sandbox_id, creates: true, ..Told::default() })
}

/// `"<sandbox>" for container <metadata>` or `"<sandbox>" for <metadata> returns container id "<id>"`.
fn create_container(rest: &str) -> Option<Told<'_>> {
    Some(Told {
        pod: None,
        sandbox_id: quoted_id(rest),
        container_id: rest.split_once(" returns container id ").and_then(|(_, id)| quoted_id(id)),
        container_name: metadata_field(rest, "name"),
        creates: true,
    })
}

/// The id at the start of `text`, in double quotes.
fn quoted_id(text: &str) -> Option<&str> {
    let (id, _) = text.strip_prefix('"')?.split_once('"')?;
    is_id(id).then_some(id)
}

/// A string field of a metadata message in either spelling: `Name:web,` or `name:"web"`. Names of Kubernetes objects need
/// no escapes.
fn metadata_field<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    text.match_indices(':').find_map(|(colon, _)| {
        let key = text[..colon].rsplit([' ', '{', ',']).next()?;
        if !key.eq_ignore_ascii_case(field) {
            return None;
        }
        let value = &text[colon + 1..];
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?.0,
            None => value.split([',', '}']).next()?,
        };
        (!value.is_empty()).then_some(value)
    })
}

/// `namespace/pod/container`, as CRI-O describes containers.
fn description(text: &str) -> Option<(PodName<'_>, &str)> {
    let mut parts = text.split('/');
    let (namespace, name, container) = (parts.next()?, parts.next()?, parts.next()?);
    let complete = !namespace.is_empty() && !name.is_empty() && !container.is_empty() && parts.next().is_none();
    complete.then_some((PodName { namespace, name, uid: "" }, container))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SANDBOX: &str = "da217294507010c68272f09364243887721d384a5d10fe46d7252682a0193ce0";
    const CONTAINER: &str = "944e5172ff849a57e959a737dc4224c1e95a8fe6302dc3ad5abe9984d3ffb727";
    const WEB: PodName<'_> = PodName { namespace: "default", name: "web", uid: "1111-2222" };

    fn sandbox() -> Told<'static> {
        Told { sandbox_id: Some(SANDBOX), ..Told::default() }
    }

    fn container() -> Told<'static> {
        Told { container_id: Some(CONTAINER), ..Told::default() }
    }

    #[test]
    fn lines_of_containerd_in_both_spellings() {
        let named = Told { pod: Some(WEB), creates: true, ..Told::default() };
        let ran = Told { sandbox_id: Some(SANDBOX), ..named };
        let created = Told { sandbox_id: Some(SANDBOX), container_name: Some("app"), creates: true, ..container() };
        let creating = Told { container_id: None, ..created };
        let gogo = "&PodSandboxMetadata{Name:web,Uid:1111-2222,Namespace:default,Attempt:0,}";
        let text = r#"name:"web"  uid:"1111-2222" namespace:"default"  attempt:1"#;
        for (line, expected) in [
            (format!("RunPodSandbox for {gogo}"), Some(named)),
            (format!("RunPodSandbox for {text}"), Some(named)),
            (format!("RunPodSandbox for {gogo} returns sandbox id \"{SANDBOX}\""), Some(ran)),
            (format!("RunPodSandbox for {text} returns sandbox id \"{SANDBOX}\""), Some(ran)),
            (format!("RunPodSandbox for {gogo} failed, error"), Some(named)),
            (
                format!(
                    "CreateContainer within sandbox \"{SANDBOX}\" for container &ContainerMetadata{{Name:app,Attempt:0,}}"
                ),
                Some(creating),
            ),
            (format!("CreateContainer within sandbox \"{SANDBOX}\" for container name:\"app\""), Some(creating)),
            (
                format!(
                    "CreateContainer within sandbox \"{SANDBOX}\" for &ContainerMetadata{{Name:app,Attempt:0,}} returns container id \"{CONTAINER}\""
                ),
                Some(created),
            ),
            (
                format!(
                    "CreateContainer within sandbox \"{SANDBOX}\" for name:\"app\"  attempt:2 returns container id \"{CONTAINER}\""
                ),
                Some(created),
            ),
            (format!("StartContainer for \"{CONTAINER}\""), Some(container())),
            (format!("StartContainer for \"{CONTAINER}\" returns successfully"), Some(container())),
            (format!("StopContainer for \"{CONTAINER}\" with timeout 5 (s)"), Some(container())),
            (format!("Stop container \"{CONTAINER}\" with signal terminated"), Some(container())),
            (format!("RemoveContainer for \"{CONTAINER}\""), Some(container())),
            (format!("ContainerStatus for \"{CONTAINER}\" failed"), Some(container())),
            (format!("ExecSync for \"{CONTAINER}\" returns with exit code 0"), Some(container())),
            (format!("StopPodSandbox for \"{SANDBOX}\""), Some(sandbox())),
            (format!("RemovePodSandbox \"{SANDBOX}\" returns successfully"), None),
            (format!("TearDown network for sandbox \"{SANDBOX}\" successfully"), Some(sandbox())),
            (format!("Container to stop \"{CONTAINER}\" must be in running or unknown state"), None),
            ("StopPodSandbox for \"short\"".to_owned(), Some(Told::default())),
            ("setup pod network".to_owned(), None),
            ("PullImage \"docker.io/library/nginx:1\"".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(containerd(&line), expected, "{line}");
        }
    }

    #[test]
    fn lines_of_crio() {
        let web = PodName { uid: "", ..WEB };
        let app = Told { pod: Some(web), container_name: Some("app"), ..Told::default() };
        let creating = Told { creates: true, ..app };
        for (line, expected) in [
            (
                "Running pod sandbox: default/web/POD".to_owned(),
                Some(Told { pod: Some(web), creates: true, ..Told::default() }),
            ),
            (
                format!("Ran pod sandbox {SANDBOX} with infra container: default/web/POD"),
                Some(Told { pod: Some(web), creates: true, ..sandbox() }),
            ),
            ("Creating container: default/web/app".to_owned(), Some(creating)),
            (
                format!("Created container {CONTAINER}: default/web/app"),
                Some(Told { container_id: Some(CONTAINER), ..creating }),
            ),
            (
                format!("Stopped container {CONTAINER}: default/web/app"),
                Some(Told { container_id: Some(CONTAINER), ..app }),
            ),
            (format!("Stopped container {SANDBOX}: default/web/POD"), Some(Told { pod: Some(web), ..sandbox() })),
            (format!("Stopping container: {CONTAINER} (timeout: 30s)"), Some(container())),
            (format!("Stopping pod sandbox: {SANDBOX}"), Some(sandbox())),
            (format!("Removed pod sandbox: {SANDBOX}"), Some(sandbox())),
            ("Checking image status: docker.io/library/nginx:1".to_owned(), None),
            ("Pulling image: quay.io/a/b:1".to_owned(), None),
            ("Started container".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(crio(&line), expected, "{line}");
        }
    }
}
