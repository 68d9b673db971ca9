//! The record of a run on disk: `runs/{task_id}/`. Only this module writes there.
//!
//! ```text
//! init_run ──► log_step, Run::start_step, save_snapshot … ──► finalize_run        a worker, while it holds the lease
//! recover_run                                                                  a reaper, for an attempt without its result
//! finished_run                                     a reaper, for one that died between its last word and the settlement
//! ```
//!
//! How it can go wrong, and what holds then:
//!
//! * *The disk fails.* What can't be written is counted ([`Run::write_errors`], [`write_errors_total`]), logged once a
//!   run, noted in `final_result.json`, and the task goes on. On a full disk a reserve is given up, so that the final
//!   result still fits.
//! * *Postgres is away* when an attempt has ended. Its outcome is kept beside the runs ([`Journal`]) until it is back.
//! * *The worker dies.* Every file but `steps.jsonl` appears whole or not at all; the next attempt or the reaper moves a
//!   torn last line of `steps.jsonl` aside and sweeps what had no name yet.
//! * *The lease is lost.* Right before each change it is checked that the attempt still owns the directory ([`Run::revoke`]);
//!   this also stops a worker that slept and does not know.
//! * *The page is hostile.* Secrets are taken out ([`Redactor`]), sizes are bounded, captured markup is disarmed, no
//!   symbolic link is followed.
//! * *Files of an earlier attempt are there*, or of a run from elsewhere: they are moved to `attempts/`, never overwritten.

mod archive;
mod bounds;
mod dir;
mod errors;
mod finished;
mod inert;
mod journal;
mod page_log;
mod recovery;
mod redaction;
mod report;
mod reserve;
mod result;
mod run;
mod runs_dir;
mod snapshot;
mod steps;

pub use errors::{WriteError, WriteErrors, write_errors_total};
pub use finished::{Decided, Finished, finished_run};
pub use journal::{Journal, Kept};
pub use page_log::save_page_log;
pub use recovery::{EndedAttempt, Recovered, recover_run};
pub use redaction::{Redactor, shown_url};
pub use report::{Index, write_index};
pub use result::{FinalResult, finalize_run};
pub use run::{Run, RunStart, init_run};
pub use runs_dir::RunsDir;
pub use snapshot::{Dom, Snapshot, SnapshotKind, save_snapshot, save_snapshot_meanwhile};
pub use steps::{StepGuard, Usage, log_failure, log_step, log_step_at, steps_of};
