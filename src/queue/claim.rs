//! Taking tasks, and handing them to the worker in the shape it knows.

use std::sync::PoisonError;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Claimed, OpenIntent, Queue, QueueError, WorkerIdentity, clean, count, exposed, is_transient, repeated};
use crate::task::{Fence, Task, TaskId};

/// A row of `claim_tasks` and of `claimed_tasks`.
struct Row {
    id: i64,
    fence: i64,
    task_type: String,
    url: String,
    site: String,
    campaign_id: Option<i64>,
    payload: String,
    retry_count: i32,
    max_retries: i32,
    failures: i32,
    priority: i16,
    created_at: DateTime<Utc>,
    traceparent: Option<String>,
    request_id: Option<String>,
    locked_at: DateTime<Utc>,
    lease_expires_at: DateTime<Utc>,
    intent_fence: Option<i64>,
    intent_retry_count: Option<i32>,
    intent_at: Option<DateTime<Utc>>,
    intent_let_go: Option<bool>,
    intent: Option<String>,
    intent_outcome: Option<String>,
}

impl Queue {
    /// Takes up to `limit` ready tasks for `lease` (from the moment they are taken, by Postgres' clock), in one statement
    /// that has committed when this returns. Fair between sites, and within the limits of each over all workers.
    ///
    /// Fewer than `limit` does not mean that nothing is left; none at all means that there is nothing just now.
    ///
    /// # Errors
    /// Postgres can't be reached. Tasks may have been taken all the same: what the answer said is lost, and their leases
    /// run out.
    pub async fn claim(
        &self,
        worker: &WorkerIdentity,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Claimed>, QueueError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let number: i64 = rand::random();
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let taken = super::bounded(exposed(
            "claim",
            sqlx::query_as!(
                Row,
                r#"SELECT id AS "id!", fence AS "fence!", task_type AS "task_type!", url AS "url!", site AS "site!",
                          campaign_id, payload AS "payload!", retry_count AS "retry_count!",
                          max_retries AS "max_retries!", failures AS "failures!", priority AS "priority!",
                          created_at AS "created_at!", traceparent, request_id, locked_at AS "locked_at!",
                          lease_expires_at AS "lease_expires_at!", intent_fence, intent_retry_count, intent_at,
                          intent_let_go, intent, intent_outcome
                   FROM claim_tasks($1, $2, $3, $4, $5, $6)"#,
                worker.name,
                worker.incarnation,
                i32::try_from(limit).unwrap_or(i32::MAX),
                clean::seconds(lease),
                turn,
                number,
            )
            .fetch_all(&self.pool),
        ))
        .await;
        let rows = match taken {
            Ok(rows) => rows,
            // It never left.
            Err(error @ sqlx::Error::PoolTimedOut) => return Err(error.into()),
            Err(error) if is_transient(&error) => self.taken_by(number).await?,
            Err(error) => return Err(error.into()),
        };
        if let Some(last) = rows.last() {
            self.turn.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&last.site);
        }
        Ok(rows.into_iter().map(Claimed::from).collect())
    }

    /// What a claim took whose answer got lost: nothing, if it had been rolled back.
    async fn taken_by(&self, number: i64) -> Result<Vec<Row>, sqlx::Error> {
        repeated(is_transient, || {
            let sent = sqlx::query_as!(
                Row,
                r#"SELECT id AS "id!", fence AS "fence!", task_type AS "task_type!", url AS "url!", site AS "site!",
                          campaign_id, payload AS "payload!", retry_count AS "retry_count!",
                          max_retries AS "max_retries!", failures AS "failures!", priority AS "priority!",
                          created_at AS "created_at!", traceparent, request_id, locked_at AS "locked_at!",
                          lease_expires_at AS "lease_expires_at!", intent_fence, intent_retry_count, intent_at,
                          intent_let_go, intent, intent_outcome
                   FROM claimed_tasks(ARRAY(
                       SELECT a.id FROM tasks t JOIN attempts a ON a.id = t.fence
                       WHERE t.lease_owner IS NOT NULL AND a.claim = $1 ORDER BY a.id))"#,
                number,
            )
            .fetch_all(&self.pool);
            exposed("claimed", sent)
        })
        .await
    }
}

impl From<Row> for Claimed {
    fn from(row: Row) -> Self {
        Claimed {
            fence: Fence(row.fence),
            locked_at: row.locked_at,
            lease_expires_at: row.lease_expires_at,
            open_intent: match (row.intent_fence, row.intent_at, &row.intent) {
                (Some(fence), Some(committed_at), Some(intent)) => Some(OpenIntent {
                    fence: Fence(fence),
                    retry_count: count(row.intent_retry_count.unwrap_or(0)),
                    committed_at,
                    let_go: row.intent_let_go.unwrap_or(true),
                    intent: parsed(intent),
                    outcome: row.intent_outcome.as_deref().map(parsed),
                }),
                _ => None,
            },
            task: Task {
                id: TaskId(row.id),
                task_type: row.task_type,
                url: row.url,
                site: row.site,
                campaign_id: row.campaign_id,
                payload: parsed(&row.payload),
                retry_count: count(row.retry_count),
                max_retries: count(row.max_retries),
                failures: count(row.failures),
                priority: row.priority,
                created_at: row.created_at,
                traceparent: row.traceparent,
                request_id: row.request_id,
            },
        }
    }
}

/// JSON that Postgres holds and we may be unable to: too deep, or a number beyond any of ours. Such a value becomes null,
/// so that the worker refuses that one task as bad input and the rest of the batch is unharmed.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
