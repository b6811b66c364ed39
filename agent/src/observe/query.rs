//! Questions to the owner of the recorder, which answers between two batches.

use tokio::sync::{mpsc, oneshot};

use crate::api::{CallEntry, PodSummary, PodTimeline};

/// Questions that wait at a time; more are told to come again. People and dashboards ask, not machinery.
const QUESTIONS_MAX: usize = 16;

/// A question and where its answer goes.
#[derive(Debug)]
pub enum Query {
    Pods { answer: oneshot::Sender<Vec<PodSummary>> },
    Pod { namespace: String, name: String, answer: oneshot::Sender<Option<PodTimeline>> },
    Calls { method: Option<String>, since_ns: Option<u64>, answer: oneshot::Sender<Vec<CallEntry>> },
}

/// Asks; clones share the channel.
#[derive(Debug, Clone)]
pub struct Queries {
    sender: mpsc::Sender<Query>,
}

/// Nobody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("too many questions at a time")]
    Busy,
    #[error("the agent is going down")]
    Stopped,
}

/// The channel from the admin listener to the owner of the recorder.
pub fn queries() -> (Queries, mpsc::Receiver<Query>) {
    let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
    (Queries { sender }, receiver)
}

// === impl Queries ===

impl Queries {
    pub(super) async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(query(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Busy,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Stopped,
        })?;
        answered.await.map_err(|_| Unanswered::Stopped)
    }

    /// Whether there is still somebody to answer.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}
