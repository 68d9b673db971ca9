//! Adding tasks: any number in one transaction, in chunks of arrays.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::future::Future;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Enqueued, Queue, QueueError, bounded, clean, is_rolled_back, wake};
use crate::seal::Keys;
use crate::task::{NewTask, TaskId};

/// Most tasks in one statement, and most bytes of payload.
const CHUNK: usize = 5_000;
const CHUNK_BYTES: usize = 16_000_000;
/// How often a key is looked at that another transaction keeps taking and freeing.
const DEDUPE_TRIES: usize = 5;

impl Queue {
    /// Adds tasks in one transaction, in order; the answers are in the same order. `default_max_retries` where a task
    /// says nothing. Sites are checked by the caller.
    ///
    /// # Errors
    /// There is no key to seal a secret with ([`QueueError::NoKey`]), or
    /// Postgres can't be reached or can't store one of them: then none was added, unless it is unknown whether the last
    /// answer was lost after the commit ([`QueueError::is_transient`]). A dedupe key makes it safe to send again.
    pub async fn enqueue(&self, tasks: &[NewTask], default_max_retries: u32) -> Result<Vec<Enqueued>, QueueError> {
        self.check_sealing(tasks).await?;
        let payloads: Vec<String> = tasks.iter().map(|task| clean::json(&task.payload).to_string()).collect();
        repeated_transaction(|| async {
            let mut transaction = bounded(self.pool.begin()).await?;
            let mut answers = Vec::with_capacity(tasks.len());
            let mut from = 0;
            while from < tasks.len() {
                let to = chunk_end(&payloads, from);
                let chunk = Columns::new(&tasks[from..to], &payloads[from..to], default_max_retries);
                answers.extend(chunk.insert(&self.keys, &mut transaction).await?);
                from = to;
            }
            if answers.iter().any(|answer: &Enqueued| !answer.deduplicated) {
                bounded(wake::notify(&mut transaction)).await?;
            }
            bounded(transaction.commit()).await?;
            Ok(answers)
        })
        .await
    }
}

async fn repeated_transaction<T, F>(transaction: impl Fn() -> F) -> Result<T, QueueError>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    // A transaction has no deadline of its own: each of its statements has one, and a bulk has many statements.
    let mut last = None;
    for _ in 0..3 {
        match transaction().await {
            Ok(answer) => return Ok(answer),
            Err(error) if is_rolled_back(&error) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.unwrap_or(sqlx::Error::WorkerCrashed).into())
}

fn chunk_end(payloads: &[String], from: usize) -> usize {
    let mut bytes = 0;
    let fits = payloads[from..].iter().take(CHUNK).take_while(|payload| {
        bytes += payload.len();
        bytes <= CHUNK_BYTES
    });
    from + fits.count().max(1)
}

/// The tasks of one statement, column by column.
pub(super) struct Columns<'a> {
    tasks: &'a [NewTask],
    task_types: Vec<&'a str>,
    urls: Vec<String>,
    sites: Vec<&'a str>,
    campaigns: Vec<Option<i64>>,
    payloads: &'a [String],
    max_retries: Vec<i32>,
    priorities: Vec<i16>,
    run_ats: Vec<Option<DateTime<Utc>>>,
    dedupe_keys: Vec<Option<&'a str>>,
    traceparents: Vec<Option<&'a str>>,
    request_ids: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(tasks: &'a [NewTask], payloads: &'a [String], default_max_retries: u32) -> Self {
        let max_retries = |task: &NewTask| task.max_retries.unwrap_or(default_max_retries).min(100).cast_signed();
        Self {
            tasks,
            task_types: tasks.iter().map(|task| task.task_type.as_str()).collect(),
            urls: tasks.iter().map(|task| clean::text(&task.url).into_owned()).collect(),
            sites: tasks.iter().map(|task| task.site.as_str()).collect(),
            campaigns: tasks.iter().map(|task| task.campaign_id).collect(),
            payloads,
            max_retries: tasks.iter().map(max_retries).collect(),
            priorities: tasks.iter().map(|task| task.priority).collect(),
            run_ats: tasks.iter().map(|task| task.run_at).collect(),
            dedupe_keys: tasks.iter().map(|task| task.dedupe_key.as_deref()).collect(),
            traceparents: tasks
                .iter()
                .map(|task| task.traceparent.as_deref().filter(|text| is_traceparent(text)))
                .collect(),
            request_ids: tasks
                .iter()
                .map(|task| task.request_id.as_deref().map(|id| clean::text(id).into_owned()))
                .collect(),
        }
    }

    /// The payloads as they are stored, given the tasks' ids: what is sealed is sealed for one task.
    fn sealed(&self, keys: &Keys, ids: &[i64]) -> Vec<Cow<'a, str>> {
        let sealed = self.tasks.iter().zip(ids).map(|(task, id)| {
            keys.seal(TaskId(*id), &task.url, &task.payload).map(|sealed| clean::json(&sealed).to_string())
        });
        sealed
            .zip(self.payloads)
            .map(|(sealed, clear)| sealed.map_or(Cow::Borrowed(clear.as_str()), Cow::Owned))
            .collect()
    }

    pub(super) async fn insert(
        &self,
        keys: &Keys,
        connection: &mut PgConnection,
    ) -> Result<Vec<Enqueued>, sqlx::Error> {
        let ids = bounded(
            sqlx::query_scalar!(
                r#"SELECT nextval(pg_get_serial_sequence('tasks', 'id')) AS "id!" FROM generate_series(1, $1)"#,
                i32::try_from(self.urls.len()).unwrap_or(i32::MAX),
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        let mut answers: Vec<Enqueued> =
            ids.iter().map(|id| Enqueued { id: TaskId(*id), deduplicated: false }).collect();
        let payloads = self.sealed(keys, &ids);
        let payloads: Vec<&str> = payloads.iter().map(Cow::as_ref).collect();
        let mut open = ids;
        for _ in 0..DEDUPE_TRIES {
            let added: Vec<i64> = bounded(self.insert_as(&open, &payloads, connection)).await?;
            if added.len() == open.iter().filter(|id| **id != 0).count() {
                return Ok(answers);
            }
            let added: HashSet<i64> = added.into_iter().collect();
            let refused: Vec<usize> = (0..open.len()).filter(|n| open[*n] != 0 && !added.contains(&open[*n])).collect();
            let keys: Vec<String> = refused.iter().filter_map(|n| self.dedupe_keys[*n]).map(str::to_owned).collect();
            let live: HashMap<String, i64> = bounded(
                sqlx::query!(
                    r#"SELECT dedupe_key AS "key!", id FROM tasks
                       WHERE dedupe_key = ANY ($1) AND status IN ('pending', 'running')"#,
                    &keys,
                )
                .fetch_all(&mut *connection),
            )
            .await?
            .into_iter()
            .map(|row| (row.key, row.id))
            .collect();
            let mut again = vec![0; open.len()];
            for n in refused {
                match self.dedupe_keys[n].and_then(|key| live.get(key)) {
                    Some(id) => answers[n] = Enqueued { id: TaskId(*id), deduplicated: true },
                    // The task that had the key has ended in between.
                    None => again[n] = open[n],
                }
            }
            if again.iter().all(|id| *id == 0) {
                return Ok(answers);
            }
            open = again;
        }
        Err(sqlx::Error::Protocol("a dedupe key is taken and freed again and again; try later".to_owned()))
    }

    /// Inserts the tasks whose id is not 0, and says the ids of those that no live task's dedupe key kept out.
    async fn insert_as(
        &self,
        ids: &[i64],
        payloads: &[&str],
        connection: &mut PgConnection,
    ) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar!(
            r#"INSERT INTO tasks (id, task_type, url, site, campaign_id, payload, max_retries, priority, run_at, ready,
                                  dedupe_key, traceparent, request_id)
               SELECT n.id, n.task_type, n.url, n.site, n.campaign_id, n.payload::jsonb, n.max_retries, n.priority,
                      coalesce(n.run_at, now()), coalesce(n.run_at <= now(), true), n.dedupe_key, n.traceparent,
                      n.request_id
               FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::integer[],
                           $8::smallint[], $9::timestamptz[], $10::text[], $11::text[], $12::text[])
                    AS n (id, task_type, url, site, campaign_id, payload, max_retries, priority, run_at, dedupe_key,
                          traceparent, request_id)
               WHERE n.id <> 0
               -- Those who add the same keys wait for each other in one order, and so in no circle.
               ORDER BY n.dedupe_key NULLS FIRST, n.id
               ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL AND status IN ('pending', 'running') DO NOTHING
               RETURNING id"#,
            ids,
            &self.task_types as &[&str],
            &self.urls,
            &self.sites as &[&str],
            &self.campaigns as &[Option<i64>],
            payloads as &[&str],
            &self.max_retries,
            &self.priorities,
            &self.run_ats as &[Option<DateTime<Utc>>],
            &self.dedupe_keys as &[Option<&str>],
            &self.traceparents as &[Option<&str>],
            &self.request_ids as &[Option<String>],
        )
        .fetch_all(connection)
        .await
    }
}

/// A trace context that is none must not cost the task: it is left out.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == 4
        && parts.iter().zip([2, 32, 16, 2]).all(|(part, length)| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_context_is_stored() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in ["", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "00-1-2-01", "x"] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn a_chunk_is_bounded_in_rows_and_in_bytes_and_never_empty() {
        let small = vec![String::new(); CHUNK + 1];
        assert_eq!((chunk_end(&small, 0), chunk_end(&small, CHUNK)), (CHUNK, CHUNK + 1));
        let big = vec!["x".repeat(CHUNK_BYTES); 2];
        assert_eq!((chunk_end(&big, 0), chunk_end(&big, 1)), (1, 2));
    }
}
