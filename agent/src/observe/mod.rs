//! What the agent tells about itself: metrics, the span ledger, logs, and the admin listener.

mod admin;
mod calls;
mod events;
mod explain;
mod labels;
mod logging;
mod metrics;
mod programs;
mod query;

pub use admin::{Admin, Subject};
pub use calls::CallSample;
pub use events::EventLedger;
pub use explain::explain;
pub use labels::{
    DropReason, FilterRule, ForgetReason, IdentityResult, JoinResult, KubernetesResult, Label, Phase, Receiver,
    Refusal, SpanKind,
};
pub use logging::start_logging;
pub use metrics::Metrics;
pub use programs::ProgramLedger;
pub use query::{Queries, Query, queries};
