//! The watch of the Kubernetes API, against an API server that does as it is told and, where there is one, the real one.

mod agent;
mod cluster;
mod facts;
mod failures;
mod in_cluster;
mod kubeconfig;
mod memory;
mod objects;
mod real;
mod scenarios;
mod server;
mod upstream;
mod wire;
