//! Which runs: the filter that lists, counts, retries and exports share, and what it is in SQL.

use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};
use sqlx::{Postgres, QueryBuilder};

use super::clean;
use crate::failure::FailureReason;
use crate::task::TaskStatus;

/// In how many runs is looked at a time for what no index knows; more would take longer than a page may. A text.
pub const REACH: i64 = 25_000;
/// What the row itself says.
const REACH_OF_ROWS: i64 = 50_000;
/// The step of dead letters, which lie far apart.
const REACH_OF_DEAD: i64 = 10_000;
/// What is looked up elsewhere for each of them.
const REACH_OF_LOOKUPS: i64 = 2_000;

/// Which runs; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// In this status.
    pub status: Option<TaskStatus>,
    /// Whose latest failure has this reason.
    pub failure_reason: Option<FailureReason>,
    /// Whose latest failure has this code.
    pub failure_code: Option<String>,
    /// Of this task type.
    pub task_type: Option<String>,
    /// On this origin.
    pub site: Option<String>,
    /// Enqueued at or after.
    pub since: Option<DateTime<Utc>>,
    /// Enqueued before.
    pub until: Option<DateTime<Utc>>,
    /// A number of a task, or a part of its URL as it is shown, last error or failure code, in any case.
    pub q: Option<String>,
    /// With at least so many attempts before the latest one.
    pub min_retries: Option<u32>,
    /// In one of whose attempts a step of this name failed.
    pub failed_step: Option<String>,
    /// In one of whose attempts that ended a step of this name was taken; with `min_retries` in one after so many others.
    pub step: Option<String>,
    /// Whose latest death was at this step; [`NOWHERE`]: no step says where.
    pub stuck_at: Option<String>,
    /// Only those of which this holds.
    pub only: Option<Only>,
    /// And none of these.
    pub without: Without,
}

impl RunFilter {
    /// In how many runs is looked at a time, because no index knows what is asked for; None: one does.
    pub fn reach(&self) -> Option<i64> {
        let of_rows = self.min_retries.is_some()
            || self.failure_code.is_some()
            || self.task_type.is_some()
            || self.only == Some(Only::Executed)
            || self.without != Without::default();
        let looked_up = self.step.is_some() || self.only == Some(Only::Wasted);
        let reaches = [
            (looked_up, REACH_OF_LOOKUPS),
            (self.stuck_at.is_some(), REACH_OF_DEAD),
            (text(self).is_some(), REACH),
            (of_rows, REACH_OF_ROWS),
        ];
        reaches.into_iter().find(|(asked, _)| *asked).map(|(_, reach)| reach)
    }
}

/// Stands for the step of a dead letter of which none is on record.
pub const NOWHERE: &str = "none";

/// What may hold of a run besides its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// An attempt at it has ended.
    Executed,
    /// Money was spent on attempts that did not succeed.
    Wasted,
    /// Pending, and could be taken at once but for the pace of its site.
    Ready,
    /// Pending, and waits for its time or a retry.
    Scheduled,
}

impl Only {
    /// All of them.
    pub const ALL: [Only; 4] = [Only::Executed, Only::Wasted, Only::Ready, Only::Scheduled];

    /// As addresses and the command line have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Only::Executed => "executed",
            Only::Wasted => "wasted",
            Only::Ready => "ready",
            Only::Scheduled => "scheduled",
        }
    }
}

impl FromStr for Only {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Only::ALL.into_iter().find(|only| only.as_str() == text);
        known.ok_or("must be executed, wasted, ready or scheduled")
    }
}

/// What runs must not be; a run without a failure has none of the reasons and codes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Without {
    /// In none of these statuses.
    pub status: Vec<TaskStatus>,
    /// Whose latest failure has none of these reasons.
    pub failure_reason: Vec<FailureReason>,
    /// Nor these codes.
    pub failure_code: Vec<String>,
    /// Of none of these task types.
    pub task_type: Vec<String>,
    /// On none of these origins.
    pub site: Vec<String>,
}

/// A time as RFC 3339, or a day in UTC, which stands for its beginning.
///
/// # Errors
/// How it is written.
pub fn instant_from(text: &str) -> Result<DateTime<Utc>, &'static str> {
    instant(text, Some).ok_or("write it like 2027-01-31 or 2027-01-31T12:00:00Z")
}

/// The same where something ends: a day stands for its end, so all of it is in.
///
/// # Errors
/// How it is written.
pub fn instant_to(text: &str) -> Result<DateTime<Utc>, &'static str> {
    instant(text, |day| day.succ_opt()).ok_or("write it like 2027-01-31 or 2027-01-31T12:00:00Z")
}

/// Where a filter begins: as [`instant_from`], or so long before `now`: `24h`, `7d`.
///
/// # Errors
/// How it is written.
pub fn time_from(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, &'static str> {
    ago(text, now).or_else(|| instant(text, Some)).ok_or(TIMES)
}

/// Where a filter ends: as [`instant_to`], or so long before `now`.
///
/// # Errors
/// How it is written.
pub fn time_to(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, &'static str> {
    ago(text, now).or_else(|| instant(text, |day| day.succ_opt())).ok_or(TIMES)
}

const TIMES: &str = "write it like 2027-01-31, 2027-01-31T12:00:00Z, 24h or 7d (ago)";

fn instant(text: &str, midnight: impl Fn(NaiveDate) -> Option<NaiveDate>) -> Option<DateTime<Utc>> {
    let day = || Some(midnight(text.parse().ok()?)?.and_time(NaiveTime::MIN).and_utc());
    // Others Postgres does not know.
    text.parse().ok().or_else(day).filter(|time: &DateTime<Utc>| (1970..=9999).contains(&time.year()))
}

fn ago(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let (digits, hours) = text.strip_suffix('h').map(|n| (n, 1)).or_else(|| text.strip_suffix('d').map(|n| (n, 24)))?;
    let n: i64 = digits.parse().ok().filter(|n| (0..=100_000).contains(n))?;
    Some(now - chrono::TimeDelta::hours(n * hours))
}

/// Only what is asked for is in the statement, and the status stands in it as a literal: so the planner can use the partial
/// index of the dead letters.
pub(super) fn conditions(query: &mut QueryBuilder<Postgres>, filter: &RunFilter, below: i64, limit: i64) {
    plain_conditions(query, filter, below);
    slow_conditions(query, filter, "tasks");
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
}

/// What `from` (a selection of `tasks`) gives of the runs that match; what no index knows is looked for in so many of them as
/// [`RunFilter::reach`] says.
pub(super) fn within_reach(query: &mut QueryBuilder<Postgres>, from: &str, filter: &RunFilter, below: i64) {
    query.push("(").push(from);
    plain_conditions(query, filter, below);
    if let Some(reach) = filter.reach() {
        query.push(" ORDER BY id DESC LIMIT ").push_bind(reach).push(") looked_at WHERE true");
        slow_conditions(query, filter, "looked_at");
    } else {
        query.push(") found");
    }
}

/// Those that wait, as the partial indexes have them.
const WAITING: &str = " AND status = 'pending' AND (ready OR (status = 'pending' AND NOT ready))";

/// `runs`: what the rows are called in the statement.
pub(super) fn slow_conditions(query: &mut QueryBuilder<Postgres>, filter: &RunFilter, runs: &str) {
    row_conditions(query, filter);
    if let Some(text) = text(filter) {
        query.push(" AND ");
        text_condition(query, &text);
    }
    if let Some(step) = &filter.step {
        query.push(" AND EXISTS (SELECT 1 FROM attempts a JOIN steps s ON s.attempt_id = a.id WHERE a.task_id = ");
        query.push(runs).push(".id AND a.status <> 'running' AND s.name = ").push_bind(clean::text(step).into_owned());
        if let Some(least) = filter.min_retries {
            query.push(" AND a.retry_count >= ").push_bind(i32::try_from(least).unwrap_or(i32::MAX));
        }
        query.push(")");
    }
    if filter.only == Some(Only::Wasted) {
        query.push(" AND EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = ").push(runs);
        query.push(".id AND a.status NOT IN ('running', 'succeeded') AND a.cost_usd > 0)");
    }
}

/// The text to look for, as it is compared.
fn text(filter: &RunFilter) -> Option<String> {
    let q = filter.q.as_deref().map(str::trim).filter(|q| !q.is_empty())?;
    Some(clean::text(q).to_lowercase())
}

fn text_condition(query: &mut QueryBuilder<Postgres>, text: &str) {
    query.push("(id::text = ").push_bind(text.to_owned());
    for column in ["last_error", "failure_code"] {
        query.push(" OR position(").push_bind(text.to_owned()).push(" in lower(").push(column).push(")) > 0");
    }
    // Of an address only what is shown of it: what is masked could be guessed by whether it is found. The first condition
    // keeps the patterns away from addresses that can't match.
    query.push(" OR (position(").push_bind(text.to_owned()).push(" in lower(url)) > 0");
    query.push(" AND position(").push_bind(text.to_owned()).push(" in lower(shown_address(url))) > 0))");
}

pub(super) fn plain_conditions(query: &mut QueryBuilder<Postgres>, filter: &RunFilter, below: i64) {
    query.push(" WHERE id < ").push_bind(below);
    if let Some(status) = filter.status {
        query.push(" AND status = '").push(status.as_str()).push("'");
        // The same once more, as the partial indexes of the few that are not over have it.
        query.push(match status {
            TaskStatus::Running => " AND lease_owner IS NOT NULL",
            TaskStatus::Pending => WAITING,
            _ => "",
        });
    }
    if let Some(reason) = filter.failure_reason {
        query.push(" AND failure_reason = '").push(reason.as_str()).push("'");
    }
    if let Some(site) = &filter.site {
        query.push(" AND site = ").push_bind(clean::text(site).into_owned());
    }
    if let Some(since) = filter.since {
        query.push(" AND created_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" AND created_at < ").push_bind(until);
    }
    if let Some(step) = &filter.failed_step {
        query.push(" AND EXISTS (SELECT 1 FROM steps s WHERE NOT s.ok AND s.task_id = tasks.id AND s.name = ");
        query.push_bind(clean::text(step).into_owned()).push(")");
    }
    if filter.stuck_at.is_some() {
        query.push(" AND status = 'failed'");
    }
    // The first half is what the partial indexes of those that wait have.
    match filter.only {
        Some(Only::Ready) => query.push(WAITING).push(" AND (ready OR run_at <= clock_timestamp())"),
        Some(Only::Scheduled) => query.push(WAITING).push(" AND NOT ready AND run_at > clock_timestamp()"),
        Some(Only::Executed | Only::Wasted) | None => query.push(""),
    };
}

/// What the rows say that no index knows.
fn row_conditions(query: &mut QueryBuilder<Postgres>, filter: &RunFilter) {
    if let Some(code) = &filter.failure_code {
        query.push(" AND failure_code = ").push_bind(clean::text(code).into_owned());
    }
    if let Some(task_type) = &filter.task_type {
        query.push(" AND task_type = ").push_bind(clean::text(task_type).into_owned());
    }
    if let Some(least) = filter.min_retries {
        query.push(" AND retry_count >= ").push_bind(i32::try_from(least).unwrap_or(i32::MAX));
    }
    match filter.stuck_at.as_deref() {
        Some(NOWHERE) => query.push(" AND stuck_at IS NULL"),
        Some(step) => query.push(" AND stuck_at = ").push_bind(clean::text(step).into_owned()),
        None => query.push(""),
    };
    if filter.only == Some(Only::Executed) {
        query.push(" AND execution_time IS NOT NULL");
    }
    for status in &filter.without.status {
        query.push(" AND status <> '").push(status.as_str()).push("'");
    }
    for reason in &filter.without.failure_reason {
        query.push(" AND failure_reason IS DISTINCT FROM '").push(reason.as_str()).push("'");
    }
    let texts = [
        ("failure_code", &filter.without.failure_code),
        ("task_type", &filter.without.task_type),
        ("site", &filter.without.site),
    ];
    for (column, values) in texts {
        for value in values {
            query.push(" AND ").push(column).push(" IS DISTINCT FROM ").push_bind(clean::text(value).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_in_from_its_beginning_to_its_end_and_an_instant_is_that_instant() {
        let now = Utc::now();
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(time_from("2024-02-29", now), Ok(at("2024-02-29T00:00:00Z")));
        assert_eq!(time_to("2024-02-29", now), Ok(at("2024-03-01T00:00:00Z")));
        for read in [time_from, time_to] {
            assert_eq!(read("2024-01-15T10:30:00Z", now), Ok(at("2024-01-15T10:30:00Z")));
            assert_eq!(read("2024-01-15T00:00:00+02:00", now), Ok(at("2024-01-14T22:00:00Z")));
            assert_eq!(read("24h", now), Ok(now - chrono::TimeDelta::hours(24)));
        }
    }

    #[test]
    fn times_that_postgres_does_not_know_are_refused() {
        for bad in ["-9999-01-01", "+262000-01-01", "9999-12-31", "99999999999999h", "", "h", "-1h", "yesterday"] {
            assert!(time_to(bad, Utc::now()).is_err(), "{bad}");
        }
    }
}
