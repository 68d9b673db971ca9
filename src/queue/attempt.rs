//! What an attempt writes while it runs. Everything here is fenced, and may be sent twice.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Queue, QueueError, Renewal, Settled, SiteRefusal, clean, exposed, is_transient, repeated};
use crate::fault;
use crate::record::StepRecord;
use crate::task::Lease;

impl Queue {
    /// Renews all leases of a process in one statement: each that is still held is good for `lease` from now.
    ///
    /// # Errors
    /// Postgres can't be reached; whether the leases were renewed is then unknown, so count from before the call.
    pub async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<(Lease, Renewal)>, QueueError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<i64> = leases.iter().map(|lease| lease.task_id.0).collect();
        let fences: Vec<i64> = leases.iter().map(|lease| lease.fence.0).collect();
        let rows = repeated(is_transient, || {
            let sent = sqlx::query!(
                r#"WITH held AS MATERIALIZED (
                       SELECT t.id FROM unnest($1::bigint[], $2::bigint[]) AS l (id, fence)
                       JOIN tasks t ON t.id = l.id AND t.fence = l.fence AND t.status = 'running'
                       ORDER BY t.id FOR UPDATE OF t
                   )
                   UPDATE tasks t SET lease_expires_at = clock_timestamp() + make_interval(secs => $3)
                   FROM held WHERE t.id = held.id
                   RETURNING t.fence AS "fence!", t.cancel_requested"#,
                &ids,
                &fences,
                clean::seconds(lease),
            )
            .fetch_all(&self.pool);
            exposed("renew", sent)
        })
        .await?;
        let held: HashMap<i64, bool> = rows.into_iter().map(|row| (row.fence, row.cancel_requested)).collect();
        let renewal = |lease: &Lease| match held.get(&lease.fence.0) {
            Some(false) => Renewal::Held,
            Some(true) => Renewal::CancelRequested,
            None if fault::guard!("renew.fence") => Renewal::Lost,
            None => Renewal::Held,
        };
        Ok(leases.iter().map(|lease| (*lease, renewal(lease))).collect())
    }

    /// Adds steps to the record of a running attempt; one whose `seq` is there already is left as it is.
    ///
    /// # Errors
    /// Postgres can't be reached or can't store them.
    pub async fn record_steps(&self, lease: Lease, steps: &[StepRecord]) -> Result<Settled, QueueError> {
        let steps: Vec<Value> = steps.iter().map(|step| step_row(lease, step)).collect();
        let steps = Value::Array(steps);
        let held = repeated(is_transient, || {
            let sent = sqlx::query!(
                "WITH held AS MATERIALIZED (
                     SELECT id FROM tasks WHERE id = $1 AND fence = $2 AND status = 'running' FOR UPDATE
                 )
                 SELECT add_steps($3) FROM held",
                lease.task_id.0,
                lease.fence.0,
                steps,
            )
            .fetch_optional(&self.pool);
            exposed("steps", sent)
        })
        .await?;
        Ok(if held.is_some() { Settled::Done } else { Settled::Fenced })
    }

    /// Renews the lease for `duration` and puts on record, under the fence, what is about to be submitted.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`], [`QueueError::CancelRequested`], or [`QueueError::SiteRefused`]: nothing may be submitted.
    /// So too if Postgres can't be reached.
    pub async fn commit_intent(&self, lease: Lease, intent: &Value, duration: Duration) -> Result<(), QueueError> {
        let intent = clean::json(intent);
        let held = repeated(is_transient, || {
            let sent = sqlx::query!(
                r#"WITH held AS (
                       UPDATE tasks SET lease_expires_at = clock_timestamp() + make_interval(secs => $3)
                       WHERE id = $1 AND fence = $2 AND status = 'running'
                       RETURNING id, site, cancel_requested
                   ), refusal AS (
                       SELECT CASE WHEN s.removed_at IS NOT NULL THEN 'removed'
                                   WHEN s.authorized_until <= clock_timestamp() THEN 'expired'
                                   ELSE 'stopped' END AS why
                       FROM sites s JOIN held ON held.site = s.origin
                       WHERE s.removed_at IS NOT NULL OR s.authorized_until <= clock_timestamp()
                          OR s.stopped_at IS NOT NULL
                   ), noted AS (
                       UPDATE attempts a SET intent = $4, intent_at = clock_timestamp()
                       FROM held WHERE a.id = $2 AND a.task_id = held.id AND a.status = 'running'
                         AND NOT held.cancel_requested AND NOT EXISTS (SELECT 1 FROM refusal)
                   )
                   SELECT cancel_requested, (SELECT why FROM refusal) AS refusal FROM held"#,
                lease.task_id.0,
                lease.fence.0,
                clean::seconds(duration),
                intent,
            )
            .fetch_optional(&self.pool);
            exposed("intent", sent)
        })
        .await?;
        match held {
            Some(task) if task.cancel_requested => Err(QueueError::CancelRequested(lease)),
            Some(task) => match task.refusal.as_deref() {
                None => Ok(()),
                Some("removed") => Err(QueueError::SiteRefused(SiteRefusal::Removed)),
                Some("expired") => Err(QueueError::SiteRefused(SiteRefusal::Expired)),
                Some(_) => Err(QueueError::SiteRefused(SiteRefusal::Stopped)),
            },
            None if fault::guard!("intent.fence") => Err(QueueError::LeaseLost(lease)),
            None => Ok(()),
        }
    }

    /// Puts on record that the held request leaves now. To be called before it does.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`], also if no intent was committed; or Postgres can't be reached. The request must not
    /// leave then.
    pub async fn mark_let_go(&self, lease: Lease) -> Result<(), QueueError> {
        let marked = repeated(is_transient, || {
            let sent = sqlx::query!(
                "WITH held AS MATERIALIZED (
                     SELECT id FROM tasks WHERE id = $1 AND fence = $2 AND status = 'running' FOR UPDATE
                 )
                 UPDATE attempts a SET let_go_at = coalesce(a.let_go_at, clock_timestamp())
                 FROM held WHERE a.id = $2 AND a.task_id = held.id AND a.status = 'running' AND a.intent IS NOT NULL",
                lease.task_id.0,
                lease.fence.0,
            )
            .execute(&self.pool);
            exposed("let_go", sent)
        })
        .await?;
        if marked.rows_affected() == 1 || !fault::guard!("let_go.fence") {
            Ok(())
        } else {
            Err(QueueError::LeaseLost(lease))
        }
    }

    /// Puts on record what the site answered to the request that was let go.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`], also if no intent was committed; or Postgres can't be reached.
    pub async fn record_submit_outcome(&self, lease: Lease, outcome: &Value) -> Result<(), QueueError> {
        let outcome = clean::json(outcome);
        let noted = repeated(is_transient, || {
            let sent = sqlx::query!(
                "WITH held AS MATERIALIZED (
                     SELECT id FROM tasks WHERE id = $1 AND fence = $2 AND status = 'running' FOR UPDATE
                 )
                 UPDATE attempts a SET submit_outcome = $3, submit_outcome_at = clock_timestamp()
                 FROM held WHERE a.id = $2 AND a.task_id = held.id AND a.status = 'running' AND a.intent IS NOT NULL",
                lease.task_id.0,
                lease.fence.0,
                outcome,
            )
            .execute(&self.pool);
            exposed("outcome", sent)
        })
        .await?;
        if noted.rows_affected() == 1 { Ok(()) } else { Err(QueueError::LeaseLost(lease)) }
    }
}

/// A step as `add_steps` reads it.
pub fn step_row(lease: Lease, step: &StepRecord) -> Value {
    json!({
        "fence": lease.fence.0,
        "seq": step.seq,
        "name": clean::text(&step.name),
        "ok": step.ok,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "duration_ms": clean::amount(step.duration.as_secs_f64() * 1e3),
        "tokens": step.tokens,
        "cost_usd": clean::amount(step.cost_usd),
        "error": step.error.as_deref().map(clean::text),
        "meta": clean::json(&step.meta),
    })
}
