//! When a failed attempt is repeated: exponential backoff with full jitter. Pure but for the random number.
//!
//! The `backoff` crate is behind this module alone, so that it can be swapped in an hour.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;

/// Longest wait that a site's `Retry-After` is granted; beyond it a person should look.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Bounds of the waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper bound of the wait before the first retry; doubles with each further one.
    pub initial: Duration,
    /// Upper bound of every wait.
    pub max: Duration,
}

impl RetryPolicy {
    /// The wait before the retry that follows the `failures`-th failure (from 1): evenly distributed between nothing
    /// and `min(max, initial · 2^(failures-1))`, and not shorter than `retry_after`, which is itself cut to
    /// [`MAX_RETRY_AFTER`].
    pub fn delay(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        let drawn = full_jitter(self.ceiling(failures));
        // Those who were told the same time must not all come at that time.
        let asked = retry_after.map(|wish| wish.min(MAX_RETRY_AFTER) + full_jitter(self.initial));
        asked.map_or(drawn, |asked| asked.max(drawn))
    }

    /// The longest wait that [`RetryPolicy::delay`] can draw.
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).and_then(|factor| self.initial.checked_mul(factor));
        doubled.map_or(self.max, |wait| wait.min(self.max))
    }
}

/// Evenly distributed between nothing and `ceiling`.
fn full_jitter(ceiling: Duration) -> Duration {
    let middle = ceiling / 2;
    let mut interval = ExponentialBackoffBuilder::new()
        .with_initial_interval(middle)
        .with_max_interval(middle)
        .with_randomization_factor(1.0)
        .with_max_elapsed_time(None)
        .build();
    interval.next_backoff().unwrap_or(ceiling).min(ceiling)
}

/// The waits of a loop that reconnects: doubling from `initial` to `max`, with jitter, without end.
pub struct Reconnect(backoff::ExponentialBackoff);

impl Reconnect {
    /// A loop that has not failed yet.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(initial)
                .with_max_interval(max)
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// The wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// To be called after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { initial: Duration::from_secs(10), max: Duration::from_secs(600) };

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let seconds: Vec<u64> = (1..=8).map(|n| POLICY.ceiling(n).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(POLICY.ceiling(u32::MAX), POLICY.max);
    }

    #[test]
    fn waits_are_spread_over_the_whole_interval() {
        let draws: Vec<Duration> = (0..2_000).map(|_| POLICY.delay(3, None)).collect();
        let ceiling = POLICY.ceiling(3);
        assert!(draws.iter().all(|wait| *wait <= ceiling));
        for tenth in 0..10 {
            let (from, to) = (ceiling / 10 * tenth, ceiling / 10 * (tenth + 1));
            let n = draws.iter().filter(|wait| **wait >= from && **wait < to).count();
            assert!((100..=320).contains(&n), "{n} of 2000 draws in tenth {tenth}");
        }
    }

    #[test]
    fn a_wish_of_the_site_is_obeyed_and_bounded() {
        let asked = Duration::from_secs(3_000);
        assert!((0..100).all(|_| POLICY.delay(1, Some(asked)) >= asked));
        assert!(POLICY.delay(1, Some(Duration::from_secs(10_000_000))) <= MAX_RETRY_AFTER + POLICY.initial);
    }
}
