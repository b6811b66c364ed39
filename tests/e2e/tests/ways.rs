//! What programs write in ways that the probes do not follow is counted, and what comes behind it is told again.

use spanlet_e2e::Turn;
use spanlet_node::ways;

#[tokio::test]
async fn what_is_not_followed_is_counted_and_nothing_else() {
    let Some(_turn) = Turn::take().await else { return };
    ways::check("auto").await.unwrap();
}
