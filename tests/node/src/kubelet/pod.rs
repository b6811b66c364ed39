//! The pods that tests run, and their CRI form as kubelet writes it.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

use super::cri;
use crate::runtime::IMAGE;

/// A pod with one container.
#[derive(Debug, Clone)]
pub struct PodSpec {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub annotations: HashMap<String, String>,
    pub labels: HashMap<String, String>,
    /// `hostPID` and `hostNetwork`: in the runtime's own pid and network namespaces.
    pub in_node_namespaces: bool,
    pub container: ContainerSpec,
}

/// The pod's container.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub envs: Vec<(String, String)>,
}

impl PodSpec {
    /// A pod that idles until it is told to stop, with a new uid.
    ///
    /// # Errors
    /// When the kernel's source of uuids cannot be read.
    pub fn new(namespace: &str, name: &str) -> Result<Self> {
        let uid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a pod uid")?;
        let idle = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.trim().to_owned(),
            annotations: HashMap::new(),
            labels: HashMap::new(),
            in_node_namespaces: false,
            container: ContainerSpec {
                name: "app".to_owned(),
                image: IMAGE.to_owned(),
                command: ["/bin/sh", "-c", idle].map(str::to_owned).to_vec(),
                args: Vec::new(),
                envs: Vec::new(),
            },
        })
    }

    pub(super) fn sandbox_config(&self, cgroup_parent: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: self.name.clone(),
                uid: self.uid.clone(),
                namespace: self.namespace.clone(),
                attempt: 0,
            }),
            hostname: if self.in_node_namespaces { String::new() } else { self.name.clone() },
            log_directory: String::new(), // container output is nobody's here
            dns_config: Some(cri::DnsConfig::default()),
            labels: self.labels.clone().into_iter().chain(self.kubelet_labels()).collect(),
            annotations: self.annotations.clone(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("{cgroup_parent}/pod{}", self.uid),
                security_context: Some(cri::LinuxSandboxSecurityContext { namespace_options: Some(self.namespaces()) }),
            }),
        }
    }

    pub(super) fn container_config(&self) -> cri::ContainerConfig {
        let container = &self.container;
        let name_label = ("io.kubernetes.container.name".to_owned(), container.name.clone());
        let envs = container.envs.iter().map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() });
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: container.image.clone(), ..Default::default() }),
            command: container.command.clone(),
            args: container.args.clone(),
            working_dir: String::new(),
            envs: envs.collect(),
            labels: self.kubelet_labels().chain([name_label]).collect(),
            annotations: self.annotations.clone(),
            log_path: String::new(),
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(self.namespaces()),
                }),
            }),
        }
    }

    /// As kubelet asks for them: a pid namespace for each container, unless the pod has the node's.
    fn namespaces(&self) -> cri::NamespaceOption {
        let (network, pid) = if self.in_node_namespaces {
            (cri::NamespaceMode::Node, cri::NamespaceMode::Node)
        } else {
            (cri::NamespaceMode::Pod, cri::NamespaceMode::Container)
        };
        cri::NamespaceOption { network: network.into(), pid: pid.into() }
    }

    /// What kubelet adds to every sandbox and container.
    fn kubelet_labels(&self) -> impl Iterator<Item = (String, String)> {
        [("name", &self.name), ("namespace", &self.namespace), ("uid", &self.uid)]
            .map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.clone()))
            .into_iter()
    }
}
