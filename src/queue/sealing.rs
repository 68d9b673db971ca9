//! Secrets of tasks as rows: sealed where there is a key, and never again in the clear once there has been one.

use std::sync::Arc;

use serde_json::Value;

use super::{Queue, QueueError, bounded, is_transient, repeated};
use crate::seal::{Keys, OpenError, has_secret};
use crate::task::{NewTask, TaskId};

/// Rows that are sealed anew in one go.
const BATCH: i64 = 500;

/// How the secrets of tasks that may yet be done are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Id of the key; None: in the clear.
    pub key: Option<String>,
    /// How many tasks.
    pub tasks: i64,
}

/// What became of the secrets that were to be sealed anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Now under the current key.
    pub sealed: u64,
    /// Left as they were, because their key is missing or they are damaged.
    pub unreadable: u64,
}

impl Queue {
    /// The same queue, sealing what tasks keep secret with these keys.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Queue {
        Queue { keys: Arc::new(keys), ..self }
    }

    /// The keys that this queue was given.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Puts the key on record before the first secret is sealed with it.
    ///
    /// # Errors
    /// Postgres can't be reached, or there is no key here and the secrets of this queue are sealed.
    pub(super) async fn check_sealing(&self, tasks: &[NewTask]) -> Result<(), QueueError> {
        if !tasks.iter().any(|task| has_secret(&task.payload)) {
            return Ok(());
        }
        match self.keys.current() {
            Some(_) => self.note_key().await,
            None => match self.sealing_keys().await?.as_slice() {
                [] => Ok(()),
                keys => Err(QueueError::NoKey(keys.join(", "))),
            },
        }
    }

    /// Ids of the keys under which secrets of this queue are, or were, sealed.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn sealing_keys(&self) -> Result<Vec<String>, QueueError> {
        let ids = repeated(is_transient, || {
            sqlx::query_scalar!("SELECT id FROM sealing_keys ORDER BY since, id").fetch_all(&self.pool)
        });
        Ok(ids.await?)
    }

    async fn note_key(&self) -> Result<(), QueueError> {
        let Some(id) = self.keys.current() else { return Ok(()) };
        let noted = repeated(is_transient, || {
            sqlx::query!("INSERT INTO sealing_keys (id) VALUES ($1) ON CONFLICT DO NOTHING", id).execute(&self.pool)
        });
        noted.await?;
        Ok(())
    }

    /// How many tasks that may yet be done keep a secret, by the key that it is sealed under. Reads all of them.
    ///
    /// # Errors
    /// Postgres can't be reached, or there are too many to count in time.
    pub async fn kept_secrets(&self) -> Result<Vec<Kept>, QueueError> {
        let kept = bounded(
            sqlx::query_as!(
                Kept,
                r#"SELECT split_part(payload -> 'password' ->> 'sealed', '.', 2) AS key, count(*) AS "tasks!"
                   FROM tasks
                   WHERE status IN ('pending', 'running', 'failed') AND jsonb_typeof(payload) = 'object'
                     AND payload ? 'password'
                   GROUP BY 1 ORDER BY 1 NULLS FIRST"#
            )
            .fetch_all(&self.pool),
        );
        Ok(kept.await?)
    }

    /// Seals with the current key what is in the clear or under another key, of all tasks that may yet be done; then
    /// forgets the keys under which nothing is left. May be stopped and repeated at any time, beside working workers.
    ///
    /// # Errors
    /// Postgres can't be reached. What was sealed by then stays so.
    pub async fn reseal(&self) -> Result<Resealed, QueueError> {
        self.note_key().await?;
        let mut done = Resealed::default();
        let mut from = 0;
        loop {
            let rows = repeated(is_transient, || {
                sqlx::query!(
                    r#"SELECT id, url, payload -> 'password' AS "password!" FROM tasks
                       WHERE id > $1 AND status IN ('pending', 'running', 'failed') AND jsonb_typeof(payload) = 'object'
                         AND payload ? 'password'
                         AND split_part(payload -> 'password' ->> 'sealed', '.', 2) IS DISTINCT FROM $2
                       ORDER BY id LIMIT $3"#,
                    from,
                    self.keys.current(),
                    BATCH,
                )
                .fetch_all(&self.pool)
            });
            let rows = rows.await?;
            let Some(last) = rows.last() else { break };
            from = last.id;
            for row in rows {
                match self.sealed_anew(TaskId(row.id), &row.url, &row.password) {
                    Ok(Some(sealed)) => done.sealed += self.replace_password(row.id, &row.password, &sealed).await?,
                    Ok(None) => {}
                    Err(_) => done.unreadable += 1,
                }
            }
        }
        let left: Vec<String> = self.kept_secrets().await?.into_iter().filter_map(|kept| kept.key).collect();
        let forgotten = repeated(is_transient, || {
            sqlx::query!(
                "DELETE FROM sealing_keys WHERE id <> ALL ($1) AND id IS DISTINCT FROM $2",
                &left,
                self.keys.current()
            )
            .execute(&self.pool)
        });
        forgotten.await?;
        Ok(done)
    }

    fn sealed_anew(&self, id: TaskId, url: &str, password: &Value) -> Result<Option<Value>, OpenError> {
        let clear = self.keys.open(id, url, &serde_json::json!({"password": password}))?;
        Ok(self.keys.seal(id, url, &clear).map(|sealed| sealed["password"].clone()))
    }

    /// Unless somebody has changed it meanwhile, or the task has ended and forgotten it.
    async fn replace_password(&self, id: i64, from: &Value, to: &Value) -> Result<u64, QueueError> {
        let replaced = repeated(is_transient, || {
            sqlx::query!(
                "UPDATE tasks SET payload = jsonb_set(payload, '{password}', $3) WHERE id = $1 AND payload -> 'password' = $2",
                id,
                from,
                to,
            )
            .execute(&self.pool)
        });
        Ok(replaced.await?.rows_affected())
    }
}
