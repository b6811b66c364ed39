//! What the agent tells about itself: metrics, the span ledger, logs, and the admin listener.

mod calls;
mod events;
mod labels;
mod metrics;

pub use calls::CallSample;
pub use events::EventLedger;
pub use labels::{DropReason, FilterRule, JoinResult, Label, Phase, Receiver, Refusal, SpanKind};
pub use metrics::Metrics;
