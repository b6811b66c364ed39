//! Which answers are worth another try, and when.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The first pause after a failure.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause of our own choosing. Short, so that a backlog starts to move soon after upstream is back, and
/// bearable for upstream, because only one call a node is tried until one succeeds.
const LONGEST: Duration = Duration::from_secs(2);

/// The longest pause that upstream can ask for: a mistyped delay must not silence a node for days.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try the same request again, after the delay that upstream asked for, if it did.
    Retry { asked: Option<Duration> },
    /// The same request would fail again.
    GiveUp,
}

/// Sorts a failure by the table of the OTLP specification ("OTLP/gRPC Response", "Failures").
pub(super) fn verdict(status: &Status) -> Verdict {
    let asked = || status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Verdict::Retry { asked: asked() },
        // Only with RetryInfo does it mean that upstream can recover.
        Code::ResourceExhausted if status.get_details_retry_info().is_some() => Verdict::Retry { asked: asked() },
        _ => Verdict::GiveUp,
    }
}

/// The pause after the `failures`-th failure in a row (1 is the first): doubling, then scattered over its upper half
/// by `jitter` (0 to 1) so that nodes do not come back in step. What upstream asked for is a lower bound.
pub(super) fn pause(failures: u32, jitter: f64, asked: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16); // beyond LONGEST long before
    let longest = (FIRST * (1 << doublings)).min(LONGEST);
    let own = longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    own.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn exactly_the_codes_of_the_specification_are_retried() {
        let retryable = [1, 4, 10, 11, 14, 15];
        for code in 1..=16 {
            let wanted = if retryable.contains(&code) { Verdict::Retry { asked: None } } else { Verdict::GiveUp };
            assert_eq!(verdict(&Status::new(Code::from_i32(code), "")), wanted, "code {code}");
        }
    }

    #[test]
    fn retry_info_makes_exhaustion_retryable_and_sets_the_delay() {
        let delay = Duration::from_millis(2_500);
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let status = Status::with_error_details(code, "", ErrorDetails::with_retry_info(Some(delay)));
            assert_eq!(verdict(&status), Verdict::Retry { asked: Some(delay) });
        }
        let status = Status::with_error_details(Code::Internal, "", ErrorDetails::with_retry_info(Some(delay)));
        assert_eq!(verdict(&status), Verdict::GiveUp);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let milliseconds = |failures| pause(failures, 1.0, None).as_millis();
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7, 1_000, u32::MAX].map(milliseconds),
            [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000, 2_000]
        );
        assert_eq!(pause(3, 0.0, None).as_millis(), 200);
    }

    proptest! {
        #[test]
        fn what_upstream_asks_for_is_kept_within_reason(failures: u32, jitter in 0.0..1.0, asked in 0..10_000_u64) {
            let asked = Duration::from_secs(asked);
            let pause = pause(failures, jitter, Some(asked));
            prop_assert!(pause >= asked.min(LONGEST_ASKED));
            prop_assert!(pause <= asked.min(LONGEST_ASKED).max(LONGEST));
        }
    }
}
