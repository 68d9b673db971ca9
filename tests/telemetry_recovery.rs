//! What is left of a run when its worker dies, is slow, or loses its lease, and when several attempts follow each other.
#![allow(clippy::unwrap_used)]

use std::fs;

use pagehand::failure::{Failure, FailureReason};
use pagehand::task::TaskId;
use pagehand::telemetry::{
    EndedAttempt, Recovered, RunStart, SnapshotKind, Usage, finalize_run, init_run, log_step, recover_run,
    save_snapshot,
};
use serde_json::{Value, json};

#[path = "support/runs.rs"]
mod support;

use support::{append, ended, lost, names, runs, snapshot, start, timeout};

#[tokio::test]
async fn the_attempt_before_is_moved_to_its_own_directory_and_steps_go_on_in_the_same_file() {
    let runs = runs();
    for retry_count in 0..3 {
        let run = runs.attempt(retry_count, 10 + i64::from(retry_count)).await;
        log_step(&run, "task_started", Value::Null);
        log_step(&run, "task_locked", Value::Null);
        finalize_run(&run, ended(Some(timeout()))).await;
    }
    for (place, retry_count) in [("attempts/0", 0), ("attempts/1", 1), (".", 2)] {
        assert_eq!(runs.json(&format!("{place}/init.json"))["meta"]["retry_count"], retry_count);
        assert_eq!(runs.json(&format!("{place}/final_result.json"))["result"]["retry_count"], retry_count);
    }
    let counts: Vec<(i64, i64)> = runs
        .lines()
        .iter()
        .map(|line| (line["meta"]["retry_count"].as_i64().unwrap(), line["seq"].as_i64().unwrap()))
        .collect();
    assert_eq!(counts, [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]);
    let report = runs.text("report.html");
    assert!(report.contains("attempts/0/final_result.json") && report.contains("attempt 3 of 4"), "{report}");
}

#[tokio::test]
async fn an_attempt_that_was_released_and_one_from_elsewhere_are_kept_under_other_names() {
    let runs = runs();
    let released = Failure::retryable(FailureReason::Unknown, "infra.shutdown", "the worker was shut down");
    for (fence, failure) in [(1, &released), (2, &released), (3, &timeout()), (4, &timeout())] {
        let run = runs.attempt(0, fence).await;
        finalize_run(&run, ended(Some(failure.clone()))).await;
    }
    let run = runs.attempt(1, 5).await;
    assert!(run.write_errors().0.is_empty());
    let kept = names(&runs.path("attempts"));
    assert_eq!(kept, ["0", "0-earlier-1", "0-released-1", "0-released-2"]);
    let attempts: Vec<Value> =
        kept.iter().map(|name| runs.json(&format!("attempts/{name}/init.json"))["attempt"].clone()).collect();
    assert_eq!(attempts, [4, 3, 1, 2]);
}

#[tokio::test]
async fn a_torn_last_line_and_temporary_files_are_put_aside_and_whole_lines_are_not_touched() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    log_step(&run, "task_started", Value::Null);
    drop(run);
    let before = runs.text("steps.jsonl");
    let torn = format!("{{\"timestamp\":\"2024{}", "x".repeat(200_000));
    append(&runs.path("steps.jsonl"), torn.as_bytes());
    fs::write(runs.path(".77-1.tmp"), "half a picture").unwrap();
    fs::create_dir_all(runs.path("attempts/0")).unwrap();
    fs::write(runs.path("attempts/0/.77-2.tmp"), "half a result").unwrap();

    let run = runs.attempt(1, 2).await;
    log_step(&run, "task_started", Value::Null);
    let after = runs.text("steps.jsonl");
    assert!(after.starts_with(&before));
    assert_eq!(runs.lines().len(), 2);
    assert_eq!(runs.text("steps.jsonl.torn"), format!("{torn}\n"));
    assert_eq!(runs.names(), ["attempts", "init.json", "steps.jsonl", "steps.jsonl.torn"]);
    assert_eq!(names(&runs.path("attempts/0")), ["init.json"]);
}

#[tokio::test]
async fn a_last_line_that_only_lacks_its_line_feed_is_valid_and_stays() {
    let runs = runs();
    drop(runs.attempt(0, 1).await);
    append(&runs.path("steps.jsonl"), br#"{"timestamp":"2024-01-15T10:30:00.000Z","step":"task_started","meta":{}}"#);
    let run = runs.attempt(1, 2).await;
    log_step(&run, "task_started", Value::Null);
    assert_eq!(runs.lines().len(), 2);
    assert!(!runs.path("steps.jsonl.torn").exists());
}

#[tokio::test]
async fn a_lost_attempt_gets_the_final_result_that_it_could_not_write() {
    let runs = runs();
    let run = runs.attempt(1, 7).await;
    log_step(&run, "task_started", Value::Null);
    run.start_step("fill_form", Value::Null).finish(Ok(()), Usage { tokens: 5, cost_usd: 0.5 });
    append(&runs.path("steps.jsonl"), b"{\"timest");

    let Recovered::Written { steps, artifacts } = recover_run(&runs.dir, lost(1, 7)).await else {
        panic!("not written")
    };
    let result = runs.json("final_result.json");
    assert_eq!(result["result"]["failure_code"], "infra.worker_lost");
    assert_eq!((&result["result"]["retry_count"], &result["result"]["tokens"]), (&json!(1), &json!(5)));
    assert_eq!(result["started_at"], "2024-01-15T10:30:00.123Z");
    assert_eq!(result["artifacts"]["screenshot"]["status"], "unavailable");
    assert!(runs.text("report.html").contains("its worker was lost"));
    let last = &runs.lines()[2];
    assert_eq!((&last["step"], &last["status"], &last["seq"]), (&json!("result_failed"), &json!("failed"), &json!(3)));
    assert_eq!((&last["attempt"], &last["meta"]["failure_code"]), (&json!(7), &json!("infra.worker_lost")));
    assert_eq!((&last["meta"]["failure_reason"], &last["meta"]["recovered"]), (&json!("unknown"), &json!(true)));
    assert_eq!(steps.iter().map(|step| step.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(artifacts.iter().any(|file| file.name == "final_result.json"));

    // The worker was not dead, only slow.
    log_step(&run, "too_late", Value::Null);
    finalize_run(&run, ended(None)).await;
    assert!(run.is_revoked());
    assert_eq!(runs.json("final_result.json"), result);
    assert_eq!(runs.lines().len(), 3);
    // Whoever wrote it may have died before it was known: the next one has the same to tell.
    assert_eq!(recover_run(&runs.dir, lost(1, 7)).await, Recovered::Finished { result, steps, artifacts });
}

#[tokio::test]
async fn a_final_result_that_came_into_the_hands_of_the_next_attempt_is_moved_to_its_own() {
    for the_one_after_begins in [false, true] {
        let runs = runs();
        drop(runs.attempt(0, 7).await);
        assert!(matches!(recover_run(&runs.dir, lost(0, 7)).await, Recovered::Written { .. }));
        let late = runs.json("final_result.json");
        drop(runs.attempt(1, 8).await);
        // As if whoever wrote it had slept until then.
        fs::rename(runs.path("attempts/0/final_result.json"), runs.path("final_result.json")).unwrap();
        if the_one_after_begins {
            drop(runs.attempt(2, 9).await);
        }
        assert!(matches!(recover_run(&runs.dir, lost(1, 8)).await, Recovered::Written { .. }));
        assert_eq!(runs.json("attempts/0/final_result.json"), late);
        let own = if the_one_after_begins { "attempts/1/final_result.json" } else { "final_result.json" };
        assert_eq!(runs.json(own)["attempt"], 8);
        assert!(!runs.path("final_result.json.damaged").exists());
    }
}

#[tokio::test]
async fn a_final_result_says_what_the_row_says_and_a_verdict_that_came_too_late_is_kept_beside_it() {
    let runs = runs();
    finalize_run(&runs.attempt(0, 7).await, ended(None)).await;
    let own = runs.json("final_result.json");
    // The row says the same.
    let agreed = EndedAttempt { failure: None, ..lost(0, 7) };
    assert!(matches!(recover_run(&runs.dir, agreed).await, Recovered::Finished { result, .. } if result == own));
    // It was given up in the moment in which it wrote that.
    assert!(matches!(recover_run(&runs.dir, lost(0, 7)).await, Recovered::Written { .. }));
    assert_eq!(runs.json("final_result.json")["result"]["failure_code"], "infra.worker_lost");
    assert_eq!(runs.json("final_result.json.unsettled"), own);
    assert!(matches!(recover_run(&runs.dir, lost(0, 7)).await, Recovered::Finished { .. }));

    // The same where its successor has moved it away.
    finalize_run(&runs.attempt(1, 8).await, ended(None)).await;
    let own = runs.json("final_result.json");
    drop(runs.attempt(2, 9).await);
    assert!(matches!(recover_run(&runs.dir, lost(1, 8)).await, Recovered::Written { .. }));
    assert_eq!(runs.json("attempts/1/final_result.json")["result"]["failure_code"], "infra.worker_lost");
    assert_eq!(runs.json("attempts/1/final_result.json.unsettled"), own);
    assert_eq!(runs.json("init.json")["attempt"], 9);
}

#[tokio::test]
async fn an_attempt_that_died_before_it_wrote_anything_gets_init_and_result_and_the_one_before_is_kept() {
    let runs = runs();
    let run = runs.attempt(0, 7).await;
    finalize_run(&run, ended(Some(timeout()))).await;
    assert!(matches!(recover_run(&runs.dir, lost(1, 8)).await, Recovered::Written { .. }));
    assert_eq!(runs.json("init.json")["attempt"], 8);
    assert_eq!(runs.json("final_result.json")["result"]["retry_count"], 1);
    assert_eq!(runs.json("attempts/0/final_result.json")["result"]["failure_code"], "nav.timeout");
}

#[tokio::test]
async fn a_reaper_that_comes_after_the_next_attempt_has_begun_completes_the_archive_and_leaves_the_new_one_alone() {
    let runs = runs();
    drop(runs.attempt(0, 7).await);
    let next = runs.attempt(1, 9).await;
    log_step(&next, "task_started", Value::Null);
    fs::write(runs.path(".77-1.tmp"), "being written by the living").unwrap();
    assert!(matches!(recover_run(&runs.dir, lost(0, 7)).await, Recovered::Written { .. }));
    assert_eq!(runs.json("attempts/0/final_result.json")["result"]["failure_code"], "infra.worker_lost");
    // One that the archive has nothing of.
    assert!(matches!(recover_run(&runs.dir, lost(0, 8)).await, Recovered::Written { .. }));
    assert_eq!(runs.json("attempts/0-earlier-1/final_result.json")["attempt"], 8);

    assert!(runs.path(".77-1.tmp").exists() && !runs.path("final_result.json").exists());
    log_step(&next, "task_locked", Value::Null);
    finalize_run(&next, ended(None)).await;
    assert!(!next.is_revoked());
    assert_eq!(runs.json("final_result.json")["attempt"], 9);
}

#[tokio::test]
async fn a_damaged_final_result_is_kept_beside_the_one_that_takes_its_place() {
    let runs = runs();
    drop(runs.attempt(0, 7).await);
    fs::write(runs.path("final_result.json"), "{\"task_id\":12").unwrap();
    assert!(matches!(recover_run(&runs.dir, lost(0, 7)).await, Recovered::Written { .. }));
    assert_eq!(runs.text("final_result.json.damaged"), "{\"task_id\":12");
}

#[tokio::test]
async fn a_revoked_run_writes_nothing_any_more() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    log_step(&run, "task_started", Value::Null);
    let before = (runs.names(), runs.text("steps.jsonl"));
    run.revoke();
    log_step(&run, "late", Value::Null);
    save_snapshot(&run, SnapshotKind::Error, snapshot("<p>late</p>")).await;
    assert!(finalize_run(&run, ended(None)).await.is_empty());
    assert_eq!((runs.names(), runs.text("steps.jsonl")), before);
    assert_eq!(run.take_steps().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_under_way_when_the_lease_is_lost_never_appears() {
    let runs = runs();
    let page = "<p>late</p>".repeat(300_000);
    let named = || runs.names().into_iter().filter(|name| !name.ends_with(".tmp")).collect::<Vec<_>>();
    // The file is there without its name for some milliseconds only; who comes too late tries again.
    for attempt in 0..50 {
        let run = runs.attempt(attempt, i64::from(attempt)).await;
        let saving = {
            let (run, page) = (run.clone(), page.clone());
            tokio::spawn(async move { save_snapshot(&run, SnapshotKind::Error, snapshot(&page)).await })
        };
        while named().len() == runs.names().len() && !saving.is_finished() {
            tokio::task::yield_now().await;
        }
        run.revoke();
        let before = named();
        saving.await.unwrap();
        assert_eq!(named(), before);
        if !before.iter().any(|name| name == "dom_snapshot.html") {
            return;
        }
    }
    panic!("no snapshot was ever caught under way");
}

#[tokio::test]
async fn an_attempt_that_slept_through_the_end_of_its_lease_writes_nothing_over_its_successor() {
    let runs = runs();
    let sleeper = runs.attempt(0, 1).await;
    log_step(&sleeper, "task_started", Value::Null);
    let successor = runs.attempt(1, 2).await;
    log_step(&sleeper, "late", Value::Null);
    save_snapshot(&sleeper, SnapshotKind::Final, snapshot("<p>late</p>")).await;
    finalize_run(&sleeper, ended(None)).await;
    assert!(sleeper.is_revoked() && !successor.is_revoked());
    assert_eq!(runs.names(), ["attempts", "init.json", "steps.jsonl"]);
    assert_eq!(runs.lines().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_runs_at_once_each_get_their_own_whole_record() {
    let runs = runs();
    let mut tasks = tokio::task::JoinSet::new();
    for id in 1..=40 {
        let dir = runs.dir.clone();
        tasks.spawn(async move {
            let run = init_run(&dir, RunStart { task_id: TaskId(id), ..start(0, id) }).await;
            let mut steps = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let run = run.clone();
                steps.spawn_blocking(move || (0..25).for_each(|n| log_step(&run, "step", json!({ "n": n }))));
            }
            save_snapshot(&run, SnapshotKind::Initial, snapshot("<p>x</p>")).await;
            steps.join_all().await;
            finalize_run(&run, ended(None)).await;
            assert!(run.write_errors().0.is_empty(), "{:?}", run.write_errors());
        });
    }
    tasks.join_all().await;
    for id in 1..=40 {
        let path = runs.dir.run_path(TaskId(id));
        let steps = fs::read_to_string(path.join("steps.jsonl")).unwrap();
        let seqs: Vec<i64> =
            steps.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_i64().unwrap()).collect();
        assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
        assert_eq!(names(&path).len(), 8);
    }
}

#[tokio::test]
async fn an_attempt_that_slept_before_its_record_began_leaves_the_directory_to_the_later_one() {
    let runs = runs();
    let locked = |retry_count, fence, at: &str| {
        let mut start = start(retry_count, fence);
        start.meta.insert("locked_at".to_owned(), at.into());
        start
    };
    let later = init_run(&runs.dir, locked(1, 12, "2024-01-15T10:31:00.000Z")).await;
    let slept = init_run(&runs.dir, locked(0, 5, "2024-01-15T10:30:00.000Z")).await;
    assert!(slept.is_revoked() && !later.is_revoked());
    log_step(&slept, "task_started", Value::Null);
    log_step(&later, "task_started", Value::Null);
    finalize_run(&slept, ended(None)).await;
    finalize_run(&later, ended(None)).await;
    assert_eq!(
        (&runs.json("init.json")["attempt"], &runs.json("final_result.json")["attempt"]),
        (&json!(12), &json!(12))
    );
    assert_eq!(runs.lines().len(), 1);
    assert!(!runs.path("attempts").exists());

    // The number is given again by another database.
    let newer = init_run(&runs.dir, locked(0, 3, "2024-01-16T08:00:00.000Z")).await;
    assert!(!newer.is_revoked());
    assert_eq!(runs.json("init.json")["attempt"], 3);
}

#[tokio::test]
async fn an_attempt_that_was_given_up_before_its_record_began_writes_none() {
    let runs = runs();
    let buried = lost(0, 5);
    assert_ne!(recover_run(&runs.dir, buried).await, Recovered::Unwritable);
    let mut start = start(0, 5);
    start.meta.insert("locked_at".to_owned(), "2024-01-15T10:30:00.000Z".into());
    let slept = init_run(&runs.dir, start).await;
    assert!(slept.is_revoked());
    assert_eq!(runs.json("final_result.json")["result"]["failure_code"], "infra.worker_lost");
    assert!(!runs.path("attempts").exists());
}

#[tokio::test]
async fn an_attempt_that_lives_after_it_was_buried_adds_nothing_even_if_the_burial_failed_half_way() {
    let runs = runs();
    let run = init_run(&runs.dir, start(0, 5)).await;
    log_step(&run, "open_page", json!({}));
    // A directory where the final result should be: it can't be given its name.
    fs::create_dir_all(runs.path("final_result.json/in_the_way")).unwrap();
    fs::create_dir_all(runs.path("final_result.json.damaged")).unwrap();
    assert_eq!(recover_run(&runs.dir, lost(0, 5)).await, Recovered::Unwritable);
    // As if nothing had been there: only `init.json` can tell.
    fs::remove_dir_all(runs.path("final_result.json")).unwrap();
    log_step(&run, "fill_form", json!({}));
    assert!(run.is_revoked());
    let steps: Vec<_> = runs.lines().iter().map(|line| line["step"].clone()).collect();
    assert_eq!(steps, ["open_page", "result_failed"]);
}

#[tokio::test]
async fn a_directory_that_could_not_be_made_at_first_is_made_at_the_end_with_every_step() {
    let runs = runs();
    let in_the_way = runs.dir.run_path(TaskId(123));
    fs::write(&in_the_way, "").unwrap();
    let run = init_run(&runs.dir, start(0, 5)).await;
    log_step(&run, "open_page", json!({}));
    fs::remove_file(&in_the_way).unwrap();
    log_step(&run, "result_success", json!({}));
    finalize_run(&run, ended(None)).await;
    let steps: Vec<_> = runs.lines().iter().map(|line| line["step"].clone()).collect();
    assert_eq!(steps, ["open_page", "result_success"]);
    assert_eq!(runs.json("init.json")["attempt"], 5);
    assert!(runs.json("final_result.json")["artifacts"]["steps"].is_null(), "all are there");
}

#[tokio::test]
async fn a_lost_attempt_whose_successor_died_while_it_began_is_completed_where_its_files_are() {
    let runs = runs();
    runs.attempt(0, 5).await;
    // The successor had moved its files away, and had not yet written its own.
    fs::create_dir_all(runs.path("attempts/0")).unwrap();
    fs::rename(runs.path("init.json"), runs.path("attempts/0/init.json")).unwrap();
    assert!(matches!(recover_run(&runs.dir, lost(0, 5)).await, Recovered::Written { .. }));
    assert_eq!(runs.json("attempts/0/final_result.json")["attempt"], 5);
    assert!(!runs.path("init.json").exists() && !runs.path("final_result.json").exists());
}

#[tokio::test]
async fn a_result_that_was_moved_before_its_init_is_not_written_a_second_time() {
    let runs = runs();
    runs.attempt(0, 5).await;
    assert!(matches!(recover_run(&runs.dir, lost(0, 5)).await, Recovered::Written { .. }));
    // The successor died between the two moves, and nobody knows yet that the record is written.
    fs::create_dir_all(runs.path("attempts/0")).unwrap();
    fs::rename(runs.path("final_result.json"), runs.path("attempts/0/final_result.json")).unwrap();
    let Recovered::Finished { result, .. } = recover_run(&runs.dir, lost(0, 5)).await else { panic!("written again") };
    assert_eq!(result["attempt"], 5);
    assert!(!runs.path("final_result.json").exists());
    // The record of the successor brings both together.
    assert!(matches!(recover_run(&runs.dir, lost(1, 6)).await, Recovered::Written { .. }));
    assert_eq!(runs.json("attempts/0/init.json")["attempt"], 5);
    assert_eq!(runs.json("final_result.json")["attempt"], 6);
    assert_eq!(names(&runs.path("attempts")), ["0"]);
}

#[tokio::test]
async fn an_attempt_of_another_database_that_has_the_same_id_is_not_taken_for_the_lost_one() {
    let runs = runs();
    let mut theirs = start(0, 5);
    theirs.meta.insert("locked_at".to_owned(), "2020-01-02T03:04:05.678Z".into());
    finalize_run(&init_run(&runs.dir, theirs).await, ended(None)).await;
    assert!(matches!(recover_run(&runs.dir, lost(0, 5)).await, Recovered::Written { .. }));
    assert_eq!(runs.json("final_result.json")["result"]["failure_code"], "infra.worker_lost");
    assert_eq!(runs.json("attempts/0-earlier-1/final_result.json")["result"]["success"], true);
}

#[tokio::test]
async fn what_a_sleeper_left_is_swept_at_the_end_and_nothing_of_a_successor() {
    let runs = runs();
    let first = runs.attempt(0, 5).await;
    fs::write(runs.path(".4711-1.tmp"), "half").unwrap();
    finalize_run(&first, ended(None)).await;
    assert!(!runs.path(".4711-1.tmp").exists());
    // From here on the directory is the next attempt's, which is in the middle of a file.
    let slow = init_run(&runs.dir, start(1, 6)).await;
    let _next = runs.attempt(2, 7).await;
    fs::write(runs.path(".4711-2.tmp"), "half").unwrap();
    finalize_run(&slow, ended(None)).await;
    assert!(runs.path(".4711-2.tmp").exists(), "it is not ours to sweep");
}

#[tokio::test]
async fn the_result_of_a_success_that_could_not_be_written_is_written_later() {
    let runs = runs();
    let run = init_run(&runs.dir, start(0, 5)).await;
    log_step(&run, "result_success", json!({}));
    let details = json!({"outcome": "posted"}).as_object().unwrap().clone();
    let ended = EndedAttempt { failure: None, details, ..lost(0, 5) };
    assert!(matches!(recover_run(&runs.dir, ended).await, Recovered::Written { .. }));
    let written = runs.json("final_result.json");
    assert_eq!((&written["result"]["success"], &written["result"]["outcome"]), (&json!(true), &json!("posted")));
    assert_eq!(runs.lines().last().unwrap()["step"], "result_success");
}
