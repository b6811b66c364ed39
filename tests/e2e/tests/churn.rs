//! Connections that come and go: nothing of those that are not watched is told, all of those that are, and the agent stays as
//! small as it was.

use spanlet_e2e::Turn;
use spanlet_node::storm::{ChurnOptions, churn};

const SMOKE_SECONDS: u64 = 20;
const LONG_SECONDS: u64 = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_is_told_of_exactly() {
    let Some(_turn) = Turn::take().await else { return };
    holds_for(SMOKE_SECONDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten minutes"]
async fn ten_minutes_of_churn_leave_the_agent_as_it_was() {
    let Some(_turn) = Turn::take().await else { return };
    holds_for(LONG_SECONDS).await;
}

async fn holds_for(seconds: u64) {
    let options = ChurnOptions { seconds, ..ChurnOptions::default() };
    let report = churn(&options).await.unwrap();
    println!("{report}");
    assert!(report.holds(), "{report}");
    // A machine that is busy may be slower than asked for, but it must have been churn.
    assert!(report.unwatched >= seconds * options.connections_per_second / 2, "{report}");
    assert_eq!(report.medians().is_some(), seconds == LONG_SECONDS);
}
