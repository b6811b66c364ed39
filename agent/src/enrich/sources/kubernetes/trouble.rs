//! What goes wrong with the API: counted each time, said once, waited out.

use std::error::Error;

use kube::core::Status;
use tokio::time::Instant;

use super::Api;
use super::backoff::Backoff;
use crate::observe::{self, KubernetesResult};

/// The troubles of one kind of request.
#[derive(Debug)]
pub(super) struct Trouble<'a> {
    api: &'a Api,
    backoff: Backoff,
    /// What the requests are for, such as `list pods`.
    aim: &'static str,
    /// What follows for the agent.
    without: &'static str,
    /// What was said last.
    said: Option<KubernetesResult>,
}

impl<'a> Trouble<'a> {
    pub(super) fn new(api: &'a Api, backoff: Backoff, aim: &'static str, without: &'static str) -> Self {
        Self { api, backoff, aim, without, said: None }
    }

    /// Failures in a row, the last one among them.
    pub(super) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// What was asked for came: the next failure is a new trouble.
    pub(super) fn is_over(&mut self) {
        self.backoff.succeeded();
    }

    /// Counts a failure and waits. A trouble is said when it begins and when it becomes another one.
    pub(super) async fn meet(&mut self, result: KubernetesResult, error: &(dyn Error + Sync + 'static)) {
        self.api.metrics.kubernetes(result, 1);
        let pause = self.backoff.failed(Instant::now(), fastrand::f64());
        let is_new = self.failures() == 1 || self.said != Some(result);
        let error = text(error);
        if is_new && result != KubernetesResult::Expired {
            self.said = Some(result);
            tracing::warn!(error, "{}: {}", self.what(result), self.without);
        } else {
            tracing::debug!(error, ?pause, aim = self.aim, "the Kubernetes API does not answer as it should");
        }
        tokio::time::sleep(pause).await;
    }

    fn what(&self, result: KubernetesResult) -> String {
        match result {
            KubernetesResult::Forbidden => format!("the agent may not {}", self.aim),
            KubernetesResult::Unauthorized => "the Kubernetes API does not know the agent's credentials".to_owned(),
            _ => "the Kubernetes API is away".to_owned(),
        }
    }
}

/// What the API server said, if it did; else the error with its causes.
fn text(error: &(dyn Error + 'static)) -> String {
    let status = std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| {
        let boxed = error.downcast_ref::<Box<Status>>().map(AsRef::as_ref);
        boxed.or_else(|| error.downcast_ref::<Status>())
    });
    status.map_or_else(|| observe::explain(error), |status| format!("{} ({})", status.message, status.code))
}

/// What a failed request counts as.
pub(super) fn of_request(error: &kube::Error) -> KubernetesResult {
    match error {
        kube::Error::Api(status) => of_code(status.code),
        _ => KubernetesResult::Failed,
    }
}

/// What an answer's status counts as.
pub(super) fn of_code(code: u16) -> KubernetesResult {
    match code {
        401 => KubernetesResult::Unauthorized,
        403 => KubernetesResult::Forbidden,
        410 => KubernetesResult::Expired,
        _ => KubernetesResult::Failed,
    }
}
