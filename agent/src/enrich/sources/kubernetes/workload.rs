//! What a pod belongs to: its controller, and what that one belongs to.
//!
//! The pod names only its own controller. The one above it is told by asking, or by the rules by which Kubernetes names:
//!
//! * A Deployment's ReplicaSet is called `<deployment>-<hash>` and its pods carry the label `pod-template-hash: <hash>`
//!   (`pkg/controller/deployment/sync.go`). Told only if the label is there and the name ends with it: that is no guess,
//!   since only the Deployment controller sets the label.
//! * A CronJob's Job is called `<cronjob>-<minutes since 1970>` (`pkg/controller/cronjob/utils.go`). A Job made by hand may be
//!   called so too, so what is told by this rule is marked with `spanlet.cronjob.source=job_name`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::attributes::Attributes;
use super::object::Pod;

/// What a controller's own controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Above<'a> {
    /// Not asked, so told by the rules.
    ByName,
    /// The API has told: `None` if there is none.
    Asked(Option<&'a Controller>),
}

/// The owner that manages an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) uid: String,
}

/// The kinds that Kubernetes' own controllers manage pods by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ReplicaSet,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    ReplicationController,
}

/// Set by the Deployment controller on the pods of its ReplicaSets.
const HASH_LABEL: &str = "pod-template-hash";

/// Digits of the minutes since 1970 between 1989 and 2160.
const MINUTES_DIGITS: usize = 8;

impl Controller {
    /// The one owner reference that is marked as controller, if its kind is known.
    pub(super) fn of(owners: Option<&Vec<OwnerReference>>) -> Option<Self> {
        let owner = owners?.iter().find(|owner| owner.controller == Some(true))?;
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => Kind::ReplicaSet,
            ("apps", "Deployment") => Kind::Deployment,
            ("apps", "StatefulSet") => Kind::StatefulSet,
            ("apps", "DaemonSet") => Kind::DaemonSet,
            ("batch", "Job") => Kind::Job,
            ("batch", "CronJob") => Kind::CronJob,
            ("", "ReplicationController") => Kind::ReplicationController,
            _ => return None,
        };
        Some(Self { kind, name: owner.name.clone(), uid: owner.uid.clone() })
    }

    fn add_to(&self, attributes: &mut Attributes) {
        let (name, uid) = self.kind.keys();
        attributes.add(name, &self.name);
        attributes.add(uid, &self.uid);
    }
}

impl Kind {
    /// Attributes of the semantic conventions for name and uid.
    fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::ReplicaSet => ("k8s.replicaset.name", "k8s.replicaset.uid"),
            Self::Deployment => ("k8s.deployment.name", "k8s.deployment.uid"),
            Self::StatefulSet => ("k8s.statefulset.name", "k8s.statefulset.uid"),
            Self::DaemonSet => ("k8s.daemonset.name", "k8s.daemonset.uid"),
            Self::Job => ("k8s.job.name", "k8s.job.uid"),
            Self::CronJob => ("k8s.cronjob.name", "k8s.cronjob.uid"),
            Self::ReplicationController => ("k8s.replicationcontroller.name", "k8s.replicationcontroller.uid"),
        }
    }
}

/// Adds names and uids of the pod's controller and of the one above.
pub(super) fn add(pod: &Pod, controller: &Controller, above: Above<'_>, attributes: &mut Attributes) {
    match (above, controller.kind) {
        (Above::Asked(Some(above)), _) => above.add_to(attributes),
        (Above::ByName, Kind::ReplicaSet) => {
            let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
            if let Some(deployment) = hash.and_then(|hash| deployment_of(&controller.name, hash)) {
                attributes.add(Kind::Deployment.keys().0, deployment);
            }
        }
        (Above::ByName, Kind::Job) => {
            if let Some(cron_job) = cron_job_of(&controller.name) {
                attributes.add(Kind::CronJob.keys().0, cron_job);
                attributes.add("spanlet.cronjob.source", "job_name");
            }
        }
        _ => {}
    }
    controller.add_to(attributes);
}

/// The Deployment that a ReplicaSet of this name is of, if its pods carry this hash.
fn deployment_of<'a>(replica_set: &'a str, hash: &str) -> Option<&'a str> {
    let name = replica_set.strip_suffix(hash)?.strip_suffix('-')?;
    (!name.is_empty() && !hash.is_empty()).then_some(name)
}

/// The CronJob that a Job of this name is of, if it is called like one.
fn cron_job_of(job: &str) -> Option<&str> {
    let (name, minutes) = job.rsplit_once('-')?;
    let is_minutes = minutes.len() == MINUTES_DIGITS
        && !minutes.starts_with('0')
        && minutes.bytes().all(|digit| digit.is_ascii_digit());
    (is_minutes && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(api_version: &str, kind: &str, name: &str) -> serde_json::Value {
        serde_json::json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "u", "controller": true})
    }

    /// What is told of a pod with this owner and hash, without uids.
    fn told(owner: &serde_json::Value, hash: Option<&str>, above: Above<'_>) -> Vec<(String, String)> {
        let labels = hash.map_or(serde_json::json!({}), |hash| serde_json::json!({HASH_LABEL: hash}));
        let metadata = serde_json::json!({"name": "p", "uid": "u", "labels": labels, "ownerReferences": [owner]});
        let pod: Pod = serde_json::from_str(&serde_json::json!({"metadata": metadata}).to_string()).unwrap();
        let mut attributes = Attributes::default();
        if let Some(controller) = Controller::of(pod.metadata.owner_references.as_ref()) {
            add(&pod, &controller, above, &mut attributes);
        }
        attributes.into_pairs().into_iter().filter(|(key, _)| !key.ends_with(".uid")).collect()
    }

    /// API version, kind and name of the owner, the pod's hash label, what is told.
    type Row<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, &'a [(&'a str, &'a str)]);

    #[test]
    fn names_by_the_rules() {
        let table: &[Row<'_>] = &[
            (
                "apps/v1",
                "ReplicaSet",
                "web-6d4cf56db6",
                Some("6d4cf56db6"),
                &[("deployment", "web"), ("replicaset", "web-6d4cf56db6")],
            ),
            (
                "apps/v1",
                "ReplicaSet",
                "a-b-c-6d4",
                Some("6d4"),
                &[("deployment", "a-b-c"), ("replicaset", "a-b-c-6d4")],
            ),
            ("apps/v1", "ReplicaSet", "web-6d4cf56db6", None, &[("replicaset", "web-6d4cf56db6")]),
            ("apps/v1", "ReplicaSet", "web-6d4cf56db6", Some("other"), &[("replicaset", "web-6d4cf56db6")]),
            ("apps/v1", "ReplicaSet", "web-6d4cf56db6", Some("f56db6"), &[("replicaset", "web-6d4cf56db6")]),
            ("apps/v1", "ReplicaSet", "-6d4", Some("6d4"), &[("replicaset", "-6d4")]),
            ("apps/v1", "ReplicaSet", "web-", Some(""), &[("replicaset", "web-")]),
            ("apps/v1", "StatefulSet", "db", None, &[("statefulset", "db")]),
            ("apps/v1", "DaemonSet", "agent", Some("x"), &[("daemonset", "agent")]),
            (
                "batch/v1",
                "Job",
                "backup-29921700",
                None,
                &[("cronjob", "backup"), ("spanlet.cronjob.source", "job_name"), ("job", "backup-29921700")],
            ),
            ("batch/v1", "Job", "backup-2026", None, &[("job", "backup-2026")]),
            ("batch/v1", "Job", "backup-09921700", None, &[("job", "backup-09921700")]),
            ("batch/v1", "Job", "backup-299217o0", None, &[("job", "backup-299217o0")]),
            ("batch/v1", "Job", "-29921700", None, &[("job", "-29921700")]),
            ("batch/v1", "Job", "29921700", None, &[("job", "29921700")]),
            ("v1", "ReplicationController", "old", None, &[("replicationcontroller", "old")]),
            ("v1", "Node", "node-1", None, &[]),
            ("argoproj.io/v1alpha1", "ReplicaSet", "x", None, &[]),
            ("example.com/v1", "Job", "x-29921700", None, &[]),
        ];
        for (api_version, kind, name, hash, expected) in table {
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(key, value)| {
                    let key = if key.contains('.') { (*key).to_owned() } else { format!("k8s.{key}.name") };
                    (key, (*value).to_owned())
                })
                .collect();
            assert_eq!(told(&owner(api_version, kind, name), *hash, Above::ByName), expected, "{kind} {name} {hash:?}");
        }
    }

    #[test]
    fn what_was_asked_wins_over_the_rules() {
        let cron_job = Controller { kind: Kind::CronJob, name: "nightly".to_owned(), uid: "c".to_owned() };
        let job = owner("batch/v1", "Job", "backup-29921700");
        let names = |above| told(&job, None, above).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(names(Above::Asked(Some(&cron_job))), ["nightly", "backup-29921700"]);
        assert_eq!(names(Above::Asked(None)), ["backup-29921700"], "made by hand, whatever it is called");
    }

    #[test]
    fn only_the_controller_counts() {
        let owners = r#"[{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "a", "uid": "u"}]"#;
        assert_eq!(Controller::of(Some(&serde_json::from_str(owners).unwrap())), None);
        assert_eq!(Controller::of(None), None);
    }
}
