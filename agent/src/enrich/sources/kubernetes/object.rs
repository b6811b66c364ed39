//! Objects of the API, with nothing but what is used of them: the rest is skipped while it is read, so that a page of pods
//! costs a small part of its size.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::attributes::{MAX_VALUE_BYTES, cut};

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Pod {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: String,
    pub(super) qos_class: String,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    pub(super) container_statuses: Vec<ContainerStatus>,
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    /// `<runtime>://<id>`; empty before the container is made.
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
}

/// An object of which only the metadata is used.
macro_rules! metadata_only {
    ($($name:ident),+) => {
        $(
            #[derive(Debug, Clone, Deserialize)]
            pub(super) struct $name {
                #[serde(deserialize_with = "metadata")]
                pub(super) metadata: ObjectMeta,
            }
        )+
    };
}

metadata_only!(Node, ReplicaSet, Job);

macro_rules! resource {
    ($name:ident: $plural:literal of $group:literal in $scope:ty) => {
        impl Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($name).into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Pod: "pods" of "" in NamespaceResourceScope);
resource!(Node: "nodes" of "" in k8s_openapi::ClusterResourceScope);
resource!(ReplicaSet: "replicasets" of "apps" in NamespaceResourceScope);
resource!(Job: "jobs" of "batch" in NamespaceResourceScope);

/// Reads an [`ObjectMeta`] without `managedFields` and the like, each annotation as far as it can be told.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Used {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Annotations,
        owner_references: Option<Vec<OwnerReference>>,
    }
    let used = Used::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: used.name,
        namespace: used.namespace,
        uid: used.uid,
        resource_version: used.resource_version,
        labels: used.labels,
        annotations: Some(used.annotations.0),
        owner_references: used.owner_references,
        ..ObjectMeta::default()
    })
}

/// Annotations without the ends of long values: there are some of 256 KiB.
#[derive(Default)]
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnnotationsVisitor)
    }
}

struct AnnotationsVisitor;

impl<'de> Visitor<'de> for AnnotationsVisitor {
    type Value = Annotations;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("annotations")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Annotations, M::Error> {
        let mut annotations = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Cow<'de, str>>()? {
            // One character more than is told, so that it shows later that there was more.
            annotations.insert(key, cut(&value, MAX_VALUE_BYTES + 4).to_owned());
        }
        Ok(Annotations(annotations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_is_skipped() {
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "app", "env": [{"name": "SECRET"}]}]},
            "metadata": {
                "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "generation": 3,
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}],
                "annotations": {"short": "x", "long": "é".repeat(200_000)},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "v", "controller": true}],
            },
            "status": {
                "phase": "Running", "qosClass": "Burstable", "podIP": "10.0.0.1",
                "containerStatuses": [{"name": "app", "containerID": "containerd://c", "ready": true, "restartCount": 1}],
            },
        });
        let pod: Pod = serde_json::from_str(&text.to_string()).unwrap();
        assert_eq!((pod.meta().name.as_deref(), pod.meta().resource_version.as_deref()), (Some("web"), Some("7")));
        assert_eq!((&pod.meta().managed_fields, pod.meta().generation), (&None, None));
        let annotations = pod.metadata.annotations.unwrap();
        assert_eq!((annotations["short"].as_str(), annotations["long"].len()), ("x", MAX_VALUE_BYTES + 4));
        assert_eq!(pod.status.container_statuses[0].container_id, "containerd://c");
        assert_eq!(pod.metadata.owner_references.unwrap()[0].kind, "Node");
    }

    #[test]
    fn a_pod_that_has_just_been_made_has_nothing_yet() {
        let pod: Pod = serde_json::from_str(r#"{"metadata": {"name": "web", "uid": "u"}, "status": {}}"#).unwrap();
        assert!(pod.status.container_statuses.is_empty());
        let without: Pod = serde_json::from_str(r#"{"metadata": {"name": "web"}}"#).unwrap();
        assert_eq!(without.status.phase, "");
    }
}
