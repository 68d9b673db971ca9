//! Hours and days that are counted already, so that numbers over a month need not read a month's rows.
//!
//! The counting itself is in `migrations/0030_rollups.sql`. What changes a run notes the run's hour; [`Queue::roll_up`]
//! takes the notes and counts those hours anew. An hour is counted only when it is over and ten minutes have passed, in
//! which every transaction that enqueues has committed; until then its rows are read ([`Reading`]).

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use super::{Period, Queue, QueueError};

/// How long after its end an hour is still read row by row.
const OPEN_FOR: TimeDelta = TimeDelta::minutes(10);

/// From when to when; empty if both are the same.
pub(super) type Span = (DateTime<Utc>, DateTime<Utc>);

/// What a period is read from; the spans are disjoint and make up the whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Row by row: its begun hours at both ends.
    pub(super) rows: [Span; 2],
    /// Whole hours.
    pub(super) hours: [Span; 2],
    /// Whole days.
    pub(super) days: Span,
}

impl Reading {
    /// Everything from the rows.
    pub(super) fn of_rows(period: Period) -> Reading {
        let none = (period.until, period.until);
        Reading { rows: [(period.since, period.until), none], hours: [none; 2], days: none }
    }

    /// As much as can be from what is counted at the time `now`; from whole days only if `by_day`.
    pub(super) fn of_counts(period: Period, now: DateTime<Utc>, by_day: bool) -> Reading {
        let (hour, day) = (TimeDelta::hours(1), TimeDelta::days(1));
        let first = next(period.since, hour);
        let last = floor(period.until, hour).min(floor(now - OPEN_FOR, hour));
        if first >= last {
            return Reading::of_rows(period);
        }
        let none = (last, last);
        let rows = [(period.since, first), (last, period.until)];
        let days = (next(first, day), floor(last, day));
        if !by_day || days.0 >= days.1 {
            return Reading { rows, hours: [(first, last), none], days: none };
        }
        Reading { rows, hours: [(first, days.0), (days.1, last)], days }
    }
}

/// The latest multiple of `unit` (UTC) that is not after `time`.
pub(super) fn floor(time: DateTime<Utc>, unit: TimeDelta) -> DateTime<Utc> {
    // Only times beyond the years that are let in have no such multiple.
    time.duration_trunc(unit).unwrap_or(time)
}

fn next(time: DateTime<Utc>, unit: TimeDelta) -> DateTime<Utc> {
    let below = floor(time, unit);
    if below == time { time } else { below + unit }
}

impl Queue {
    /// Counts up to `most` hours anew in which something has changed, and says how many are left; None if another
    /// process is at it.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long; what was noted stays noted.
    pub async fn roll_up(&self, most: u32) -> Result<Option<i64>, QueueError> {
        let left = super::bounded(
            sqlx::query_scalar!(
                "SELECT roll_up_due(date_trunc('hour', clock_timestamp() - $1::float8 * interval '1 second', 'UTC'), $2)",
                OPEN_FOR.as_seconds_f64(),
                i32::try_from(most).unwrap_or(i32::MAX),
            )
            .fetch_one(&self.pool),
        );
        Ok(left.await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("2024-{text}Z")).unwrap().to_utc()
    }

    fn length(spans: &[Span]) -> TimeDelta {
        spans.iter().fold(TimeDelta::zero(), |sum, span| sum + (span.1 - span.0))
    }

    #[test]
    fn a_reading_covers_its_period_once() {
        let now = at("03-01T10:05:00");
        for (since, until) in [
            ("01-31T10:05:00", "03-01T10:05:00"),
            ("02-29T10:05:00", "03-01T10:05:00"),
            ("03-01T09:00:00", "03-01T10:05:00"),
            ("01-01T00:00:00", "01-31T10:05:00"),
            ("02-10T00:00:00", "02-12T00:00:00"),
        ] {
            let period = Period { since: at(since), until: at(until) };
            for by_day in [false, true] {
                let reading = Reading::of_counts(period, now, by_day);
                let all = [reading.rows.as_slice(), &reading.hours, &[reading.days]].concat();
                assert_eq!(length(&all), period.until - period.since, "{since} {reading:?}");
                let mut begun: Vec<Span> = all.into_iter().filter(|span| span.0 < span.1).collect();
                begun.sort();
                assert!(begun.windows(2).all(|pair| pair[0].1 == pair[1].0), "{since} {reading:?}");
            }
        }
    }

    #[test]
    fn an_hour_that_may_still_grow_is_read_from_its_rows() {
        let period = Period { since: at("03-01T07:30:00"), until: at("03-01T10:05:00") };
        let reading = Reading::of_counts(period, period.until, true);
        assert_eq!(reading.hours[0], (at("03-01T08:00:00"), at("03-01T09:00:00")));
        assert_eq!(reading.rows[1], (at("03-01T09:00:00"), period.until));
    }
}
