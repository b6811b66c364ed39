//! spanlet: one process per Kubernetes node that receives the OTLP spans of kubelet, the container runtime and
//! kube-apiserver, watches the same gRPC calls on the node's unix sockets, joins the two and forwards the result.
//!
//! Data flows one way, through one module per stage, in the order of the list below. Stages do not import each
//! other; [`pipeline`] is the only module that knows them all.
//!
//! ```text
//!  kubelet, containerd,        ┌─────────────────────────────── spanlet ──────────────────────────────┐
//!  CRI-O, kube-apiserver ─OTLP─► receive ─[queue]─► correlate ─► enrich ─[buffer]─► export ───────────► upstream
//!                              │                        ▲           ▲                                 │
//!  unix sockets ─► eBPF ─ring──► capture ─► http2 ─► call ┘      pods (wire, spans, runtime, API)     │
//!                              │                        ├─────► synthesize (our own spans) ─► [buffer]   │
//!                              │                        └─────► record (timelines) ─► CLI, /metrics   │
//!                              └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The nouns that travel: [`batch::Batch`] (spans as bytes), [`call::Call`] (a gRPC call as the kernel saw it),
//! [`exec::Exec`] (a process that the runtime started), each with the [`pod::Pod`] it belongs to.

pub mod config;
pub mod listen;

pub mod batch;
pub mod budget;
pub mod call;
pub mod exec;
pub mod pod;

pub mod receive;
pub mod capture;
pub mod correlate;
pub mod enrich;
pub mod synthesize;
pub mod export;
pub mod record;

pub mod api;
pub mod cli;
pub mod observe;
pub mod pipeline;
