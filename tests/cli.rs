//! The commands, run as a person runs them: what they print, what they refuse, how they exit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;
#[path = "support/program.rs"]
mod program;

use program::{Program, text};

const SITE: &str = "https://blog.example.org";

fn comment(n: usize) -> Value {
    json!({"task_type": "comment", "url": format!("{SITE}/post/{n}"), "campaign_id": 7,
           "payload": {"author": "Ann", "email": "ann@example.org", "body": format!("Hello {n}")}})
}

#[tokio::test]
async fn every_command_has_help() {
    let program = Program::new().await;
    for command in [
        vec![],
        vec!["demo"],
        vec!["migrate"],
        vec!["worker"],
        vec!["enqueue"],
        vec!["enqueue", "comment"],
        vec!["enqueue", "registration"],
        vec!["site"],
        vec!["site", "add"],
        vec!["site", "stop"],
        vec!["site", "resume"],
        vec!["proxy"],
        vec!["proxy", "add"],
        vec!["runs"],
        vec!["runs", "ls"],
        vec!["runs", "show"],
        vec!["runs", "retry"],
        vec!["runs", "cancel"],
        vec!["runs", "export"],
        vec!["runs", "index"],
        vec!["runs", "tail"],
        vec!["serve"],
        vec!["top"],
        vec!["inspect"],
        vec!["map-failure"],
        vec!["doctor"],
    ] {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let output = program.run(&args).await;
        assert!(output.status.success() && text(&output.stdout).contains("Usage:"), "{args:?}");
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_2_and_says_what_to_write() {
    let program = Program::new().await;
    for (args, says) in [
        (vec!["enqueue"], "--file"),
        (vec!["enqueue", "comment", "ftp://x/", "--author", "a", "--email", "a@b", "--body", "b"], "--url"),
        (
            vec!["enqueue", "comment", "https://x.example/", "--author", "a", "--email", "nobody", "--body", "b"],
            "--email",
        ),
        (vec!["enqueue", "--file", "nowhere.jsonl"], "nowhere.jsonl"),
        (vec!["site", "add", "example.org", "--authorized-by", "Ann"], "https://"),
        (vec!["site", "add", "http://127.0.0.1:1", "--authorized-by", "Ann"], "--allow-private"),
        (vec!["site", "add", "http://2130706433", "--authorized-by", "Ann"], "--allow-private"),
        (vec!["proxy", "add", "http://ann:secret@proxy.example:1"], "--password env:NAME"),
        (vec!["runs", "ls", "--status", "done"], "completed"),
        (vec!["worker", "--concurrency", "0"], "--concurrency"),
    ] {
        let output = program.run(&args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{args:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn an_unknown_key_of_the_configuration_is_named() {
    let program = Program::new().await.with("PAGEHAND_WORKER__CONCURENCY", "3");
    let output = program.run(&["runs", "ls"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("PAGEHAND_WORKER__CONCURENCY"), "{}", text(&output.stderr));
    let program = Program::new().await.with("PAGEHAND_WORKER_CONCURRENCY", "3");
    let output = program.run(&["runs", "ls"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("PAGEHAND_WORKER__CONCURRENCY"), "{}", text(&output.stderr));
    let program = Program::new().await.with("PAGEHAND_WORKER_CONCURENCY", "3");
    let output = program.run(&["runs", "ls"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("PAGEHAND_WORKER__CONCURRENCY"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_file_with_one_bad_line_is_not_taken_unless_that_is_asked_for() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    let mut misspelt = comment(2);
    misspelt["payload"]["emial"] = json!("x");
    let stranger = json!({"task_type": "comment", "url": "https://stranger.example/",
                          "payload": {"author": "Ann", "email": "ann@example.org", "body": "b"}});
    let lines = [
        comment(1).to_string(),
        misspelt.to_string(),
        "{not json".to_owned(),
        stranger.to_string(),
        comment(5).to_string(),
    ];
    std::fs::write(program.path().join("t.jsonl"), lines.join("\n")).unwrap();

    let refused = program.run(&["enqueue", "--file", "t.jsonl"]).await;
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(refused.stdout.is_empty());
    assert!(said.contains("line 2: payload.emial: is unknown; did you mean `email`?"), "{said}");
    assert!(
        said.contains("line 3:") && said.contains("line 4: url: https://stranger.example is not enrolled"),
        "{said}"
    );
    assert_eq!(program.json(&["runs", "ls", "--json"]).await["runs"], json!([]));

    let taken = program.json(&["enqueue", "--file", "t.jsonl", "--skip-invalid", "--json"]).await;
    assert_eq!((taken["ids"].as_array().unwrap().len(), taken["skipped"].as_u64()), (2, Some(3)));
}

#[tokio::test]
async fn ids_are_printed_one_a_line_and_a_dedupe_key_gives_the_same_id_again() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    let page = format!("{SITE}/post");
    let args = [
        "enqueue",
        "comment",
        &page,
        "--author",
        "Ann",
        "--email",
        "ann@example.org",
        "--body",
        "Grüße 😀",
        "--dedupe-key",
        "k",
    ];
    let first = program.run(&args).await;
    let again = program.run(&args).await;
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert_eq!(text(&first.stdout).trim().parse::<i64>().unwrap(), text(&again.stdout).trim().parse::<i64>().unwrap());
}

#[tokio::test]
async fn a_run_has_the_shape_that_others_script_against() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    let id = program.enqueue(&[comment(1)]).await[0];
    let list = program.json(&["runs", "ls", "--json"]).await;
    let run = &list["runs"][0];
    assert_eq!((run["id"].as_i64(), run["status"].as_str()), (Some(id), Some("pending")));
    for field in [
        "id",
        "task_type",
        "status",
        "url",
        "site",
        "retry_count",
        "max_retries",
        "failure_reason",
        "failure_code",
        "last_error",
        "created_at",
        "started_at",
        "finished_at",
        "execution_time",
        "tokens",
        "cost_usd",
    ] {
        assert!(run.as_object().unwrap().contains_key(field), "{field} is missing in {run}");
    }
    assert!(list.as_object().unwrap().contains_key("next"));
    let shown = program.show(id).await;
    assert_eq!(shown["payload"]["body"], "Hello 1");
    assert_eq!(shown["attempts"], json!([]));
    assert_eq!(program.run(&["runs", "show", "999999"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn pages_of_a_list_follow_each_other_without_gap_or_repetition() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    let ids = program.enqueue(&(0..7).map(comment).collect::<Vec<_>>()).await;
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["runs", "ls", "--json", "--limit", "3"];
        args.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor.as_str()]));
        let page = program.json(&args).await;
        seen.extend(page["runs"].as_array().unwrap().iter().map(|run| run["id"].as_i64().unwrap()));
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(seen, ids.into_iter().rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pending_task_can_be_cancelled_but_not_retried() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    let id = program.enqueue(&[comment(1)]).await[0].to_string();
    assert_eq!(program.run(&["runs", "retry", &id]).await.status.code(), Some(1));
    assert!(program.run(&["runs", "cancel", &id]).await.status.success());
    assert_eq!(program.show(id.parse().unwrap()).await["status"], "cancelled");
}

#[tokio::test]
async fn a_password_is_read_from_where_it_is_and_shown_nowhere() {
    let program = Program::new().await.with("ACCOUNT_PASSWORD", "correct horse battery");
    program.enrol(SITE).await;
    let page = format!("{SITE}/join");
    let args = [
        "enqueue",
        "registration",
        &page,
        "--username",
        "ann",
        "--email",
        "ann@example.org",
        "--password",
        "env:ACCOUNT_PASSWORD",
    ];
    let output = program.run(&args).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = program.show(text(&output.stdout).trim().parse().unwrap()).await;
    assert_eq!(shown["payload"]["password"], "***");
    assert!(!shown.to_string().contains("correct horse"));
}

#[tokio::test]
async fn sites_and_proxies_are_listed_as_they_were_added() {
    let program = Program::new().await;
    let add = [
        "site",
        "add",
        "https://Example.org:443/",
        "--authorized-by",
        "Ann",
        "--until",
        "2099-12-31",
        "--per-minute",
        "6",
    ];
    assert!(program.run(&add).await.status.success());
    let sites = program.json(&["site", "ls", "--json"]).await;
    assert_eq!(sites["sites"][0]["origin"], "https://example.org");
    assert_eq!(sites["sites"][0]["per_minute"], 6);
    assert!(program.run(&["site", "rm", "https://example.org"]).await.status.success());
    assert_eq!(program.run(&["site", "rm", "https://example.org"]).await.status.code(), Some(1));

    let id =
        program.json(&["proxy", "add", "http://ann@proxy.example:3128", "--password", "env:P", "--json"]).await["id"]
            .clone();
    let proxies = program.json(&["proxy", "ls", "--json"]).await;
    assert_eq!(proxies["proxies"][0]["url"], "http://proxy.example:3128");
    assert!(program.run(&["proxy", "rm", &id.to_string()]).await.status.success());
}

#[tokio::test]
async fn map_failure_answers_line_by_line() {
    use tokio::io::AsyncWriteExt;
    let program = Program::new().await;
    let mut child = program.command(&["map-failure", "--json"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = "net::ERR_NAME_NOT_RESOLVED\n{\"text\":\"Your comment is awaiting moderation.\",\"kind\":\"page\"}\n{\"text\":\"HTTP 429\",\"kind\":\"http\"}\n";
    input.write_all(lines.as_bytes()).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 3);
    assert_eq!(
        (answers[0]["failure_reason"].as_str(), answers[0]["failure_code"].as_str()),
        (Some("unknown"), Some("net.dns"))
    );
    assert_eq!(answers[1]["failure_reason"], Value::Null);
    assert_eq!(
        (answers[2]["failure_reason"].as_str(), answers[2]["retryable"].as_bool()),
        (Some("blocked"), Some(true))
    );
}

#[tokio::test]
async fn an_unmigrated_database_is_refused_with_the_remedy() {
    let program = Program::new().await;
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&program.db.pool).await.unwrap();
    let refused = program.run(&["runs", "ls"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("pagehand migrate"), "{}", text(&refused.stderr));
    assert!(program.run(&["migrate"]).await.status.success());
    assert!(program.run(&["runs", "ls"]).await.status.success());
}

#[tokio::test]
async fn a_site_can_be_narrowed_to_types_of_task_stopped_and_resumed() {
    let program = Program::new().await;
    let add = ["site", "add", SITE, "--authorized-by", "Ann", "--allow-private"];
    assert!(program.run(&[&add[..], &["--task-type", "registration"]].concat()).await.status.success());
    let file = program.path().join("tasks.jsonl");
    std::fs::write(&file, comment(1).to_string()).unwrap();
    let enqueue = ["enqueue", "--file", file.to_str().unwrap()];
    let refused = program.run(&enqueue).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("task_type") && said.contains("--task-type comment"), "{said}");
    assert!(program.run(&add).await.status.success());
    assert!(program.run(&["site", "stop", SITE, "--why", "they asked us to"]).await.status.success());
    let listed = program.json(&["site", "ls", "--json"]).await;
    assert_eq!(listed["sites"][0]["stopped_why"], "they asked us to");
    assert_eq!(program.run(&["site", "stop", SITE]).await.status.code(), Some(1));
    // Its tasks are taken, and wait; a worker that drains does not wait for them.
    assert!(program.run(&enqueue).await.status.success());
    program.drain().await;
    assert_eq!(program.show(1).await["status"], "pending");
    assert!(program.run(&["site", "resume", SITE]).await.status.success());
}

#[tokio::test]
async fn the_demo_ends_each_task_as_its_page_is_made_to() {
    let program = Program::new().await;
    let output = program.run(&["demo", "--json"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tasks = printed["tasks"].as_array().unwrap();
    assert!(tasks.len() > 20 && tasks.iter().all(|task| task["as_expected"] == true), "{printed}");
}

#[tokio::test]
async fn a_demo_that_is_stopped_leaves_nothing_that_keeps_the_next_one_from_beginning() {
    let program = Program::new().await.with("DATABASE_URL", "");
    let said = program.path().join("demo.err");
    let stderr = std::fs::File::create(&said).unwrap();
    let mut demo = program.command(&["demo", "--concurrency", "1"]).stderr(stderr).spawn().unwrap();
    let said = || std::fs::read_to_string(&said).unwrap_or_default();
    program::until("it has begun", async || said().contains("1/27")).await;
    program::signal(&demo, rustix::process::Signal::INT);
    let status = tokio::time::timeout(program::PATIENCE, demo.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1), "{}", said());
    for status in ["pending", "running"] {
        let left = program.json(&["runs", "ls", "--status", status, "--json"]).await;
        assert_eq!(left["runs"], json!([]), "{}", said());
    }
    assert_ne!(program.json(&["runs", "ls", "--status", "cancelled", "--json"]).await["runs"], json!([]));
}

#[tokio::test]
async fn the_failed_run_of_the_demo_times_out_through_all_its_retries_and_its_retry_succeeds() {
    let program = Program::new().await;
    let output = program.run(&["demo", "--failed-run", "--json"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (failed, retried) = (&printed["failed"], &printed["retried"]);
    assert_eq!((&failed["status"], &failed["failure_code"]), (&"failed".into(), &"nav.timeout".into()));
    assert_eq!(failed["attempts"].as_array().unwrap().len(), 3);
    let spent = failed["cost_usd"].as_f64().unwrap();
    assert!(spent > 0.0, "{failed}");
    for attempt in failed["attempts"].as_array().unwrap() {
        let steps = attempt["steps"].as_array().unwrap();
        let at = steps.iter().position(|step| step["status"] == "failed").unwrap();
        assert_eq!(steps[at]["name"], "open_page");
        assert!(at >= 10, "{attempt}");
    }
    assert_eq!((&retried["status"], &retried["retry_count"]), (&"completed".into(), &3.into()));
    assert!(retried["cost_usd"].as_f64().unwrap() > spent);
}

#[tokio::test]
async fn a_filter_by_site_takes_every_spelling_of_it_and_times_may_be_so_long_ago() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    let id = program.enqueue(&[comment(1)]).await[0];
    for spelling in [SITE, "https://blog.example.org/", "HTTPS://Blog.Example.ORG:443"] {
        let found = program.json(&["runs", "ls", "--json", "--site", spelling, "--since", "24h"]).await;
        assert_eq!(found["runs"][0]["id"], id, "{spelling}");
        let others = program.json(&["runs", "ls", "--json", "--not-site", spelling]).await;
        assert_eq!(others["runs"], json!([]), "{spelling}");
    }
    assert_eq!(program.json(&["runs", "ls", "--json", "--until", "1d"]).await["runs"], json!([]));
    let all = program.json(&["runs", "ls", "--json"]).await;
    let day: chrono::NaiveDate = all["runs"][0]["created_at"].as_str().unwrap()[..10].parse().unwrap();
    let until = async |day: chrono::NaiveDate| {
        let list = program.json(&["runs", "ls", "--json", "--until", &day.to_string()]).await;
        list["runs"].as_array().unwrap().len()
    };
    assert_eq!((until(day).await, until(day.pred_opt().unwrap()).await), (1, 0), "a day is in to its end");
    for wrong in [["--site", "blog.example.org"], ["--since", "lately"]] {
        let refused = program.run(&["runs", "ls", wrong[0], wrong[1]]).await;
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_remedy_that_is_named_can_be_typed_as_it_stands() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    assert!(program.run(&["site", "rm", SITE]).await.status.success());
    let page = format!("{SITE}/post");
    let task = ["enqueue", "comment", &page, "--author", "Ann", "--email", "ann@example.org", "--body", "Hello"];
    let refused = program.run(&task).await;
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(!said.contains("--skip-invalid"), "there is but one: {said}");
    let remedy = said.split('`').nth(1).unwrap_or_else(|| panic!("{said}"));
    let words: Vec<&str> = remedy.split(' ').collect();
    assert_eq!(words[0], "pagehand");
    let mended = program.run(&words[1..]).await;
    assert!(mended.status.success(), "{remedy}: {}", text(&mended.stderr));
    assert!(program.run(&task).await.status.success());
}

#[tokio::test]
async fn a_site_whose_authorisation_has_ended_is_listed_as_such() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    assert!(text(&program.run(&["site", "ls"]).await.stdout).contains(" open"));
    let ended = "UPDATE sites SET authorized_until = now() - interval '1 second'";
    sqlx::query(ended).execute(&program.db.pool).await.unwrap();
    let listed = text(&program.run(&["site", "ls"]).await.stdout);
    assert!(listed.contains(" expired") && !listed.contains(" open"), "{listed}");
}

#[tokio::test]
async fn a_file_may_begin_with_a_byte_order_mark() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    std::fs::write(program.path().join("t.jsonl"), format!("\u{feff}{}\r\n{}\r\n", comment(1), comment(2))).unwrap();
    let taken = program.json(&["enqueue", "--file", "t.jsonl", "--json"]).await;
    assert_eq!(taken["ids"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_index_is_written_over_a_runs_directory_without_a_database() {
    let program = Program::new().await.with("DATABASE_URL", "postgres://127.0.0.1:1/none");
    let missing = program.run(&["runs", "index"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("runs directory runs"), "{}", text(&missing.stderr));
    let run = program.path().join("elsewhere/7");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("init.json"), r#"{"task_id":7,"meta":{"task_type":"comment"}}"#).unwrap();
    let written = program.json(&["runs", "index", "elsewhere", "--json"]).await;
    assert_eq!(written, json!({"index": "elsewhere/index.html", "runs": 1, "left_out": 0}));
    let page = std::fs::read_to_string(program.path().join("elsewhere/index.html")).unwrap();
    assert!(page.contains("href=\"7/\"") && page.contains("without a result"), "{page}");
}

#[tokio::test]
async fn runs_are_exported_as_lines_and_as_a_table() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    let ids = program.enqueue(&[comment(1), comment(2)]).await;
    let lines = text(&program.run(&["runs", "export"]).await.stdout);
    let exported: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported.iter().map(|run| run["id"].as_i64().unwrap()).collect::<Vec<_>>(), [ids[1], ids[0]]);
    assert_eq!(exported[1]["attempts"], json!([]));

    let written = program.run(&["runs", "export", "--format", "csv", "--output", "runs.csv"]).await;
    assert!(written.status.success(), "{}", text(&written.stderr));
    let table = std::fs::read_to_string(program.path().join("runs.csv")).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 3 && rows[0].starts_with("id,task_type,status,url,"), "{table}");
    assert!(rows[2].starts_with(&format!("{},comment,pending,{SITE}/post/1,", ids[0])), "{table}");
    assert_eq!(program.run(&["runs", "export", "--format", "xml"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn what_keeps_postgres_from_us_is_said_with_its_remedy() {
    let program = Program::new().await;
    let weak = format!("{}&options[role]=pg_monitor", program.db.url);
    let program = program.with("DATABASE_URL", &weak);
    let refused = program.run(&["runs", "ls"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("pagehand migrate --roles"), "{}", text(&refused.stderr));

    std::fs::write(program.path().join("file"), "").unwrap();
    let program = program.with("DATABASE_URL", "").with("PAGEHAND_DATA__DIR", "file");
    let refused = program.run(&["runs", "ls"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("data.dir"), "{}", text(&refused.stderr));
}

#[tokio::test]
async fn the_id_of_a_request_is_on_its_log_line_also_when_nothing_changed_and_nothing_failed() {
    let program = Program::new().await;
    let log = program.path().join("serve.log");
    let stderr = std::fs::File::create(&log).unwrap();
    let mut server = program.command(&["serve", "--listen", "127.0.0.1:0"]).stderr(stderr).spawn().unwrap();
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let address = || lines().iter().find_map(|line| line["address"].as_str()?.parse().ok());
    program::until("it listens", async || address().is_some()).await;
    let id = ("x-request-id", "from-the-caller-1");
    let answer = http_client::send(address().unwrap(), "GET", "/runs", &[id], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (200, "from-the-caller-1"));
    program::until("it is logged", async || {
        lines().iter().any(|line| line["request_id"] == "from-the-caller-1" && line["status"] == 200)
    })
    .await;
    server.kill().await.unwrap();
}
