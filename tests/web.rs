//! The HTTP API and the pages, over real connections, on a real Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: what fails here fails the test")]

use std::collections::HashSet;
use std::time::Duration;

use http_body_util::BodyExt;
use pagehand::config::Role;
use pagehand::failure::{Failure, FailureReason};
use pagehand::queue::WorkerIdentity;
use pagehand::web::{self, AccessToken, WebError};
use serde_json::{Value, json};

use app::{FORM, HOSTILE, HTML, JSON, OPERATE, READ, SAME_ORIGIN, TestApp, comment, example, settings, timeout};
use database::TestDb;
use http_client::{Answer, open, send};

#[path = "support/app.rs"]
mod app;
#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;

fn errors(answer: &Answer) -> HashSet<String> {
    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_task_is_enqueued_listed_and_shown_without_its_password() {
    let app = TestApp::open().await;
    let task = json!({"task_type": "registration", "url": "https://example.org/join", "campaign_id": 7,
                      "payload": {"username": "ann", "email": "ann@example.org", "password": "hunter2hunter2"}});
    let added = send(app.address, "POST", "/runs", &[JSON, ("x-request-id", "my-request-1")], &task.to_string()).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let id = added.json()["id"].as_i64().unwrap();
    assert_eq!(added.header("location"), format!("/runs/{id}"));
    assert_eq!(added.header("x-request-id"), "my-request-1");

    let list = app.get("/runs").await.json();
    assert_eq!(list["runs"][0]["id"], id);
    assert_eq!(list["runs"][0]["max_retries"], 3);
    assert_eq!(list["next"], Value::Null);
    for field in [
        "task_type",
        "status",
        "url",
        "site",
        "retry_count",
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
        assert!(list["runs"][0].get(field).is_some(), "{field}");
    }
    let run = app.get(&format!("/runs/{id}")).await;
    assert_eq!(run.json()["payload"]["password"], "***");
    assert_eq!(run.json()["request_id"], "my-request-1");
    let page = app.page(&format!("/runs/{id}")).await;
    assert!(!run.text().contains("hunter2") && !page.text().contains("hunter2"));
}

#[tokio::test]
async fn a_run_shows_its_attempts_steps_and_artifacts() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    let run = app.get(&format!("/runs/{id}")).await.json();
    let attempt = &run["attempts"][0];
    assert_eq!((&attempt["retry_count"], &attempt["status"]), (&json!(0), &json!("failed")));
    let step = &attempt["steps"][0];
    assert_eq!(step["status"], "failed");
    assert_eq!(step["duration_ms"], 2000.0);
    assert_eq!(step["meta"]["password"], "***");
    assert_eq!(attempt["artifacts"][0], json!({"name": "init.json", "kind": "init", "bytes": 2}));
    let page = app.page(&format!("/runs/{id}")).await.text();
    assert!(page.contains("Failed at step submit in attempt\u{a0}1: a deadline passed"), "{page}");
    assert!(!page.contains("step-secret"));
}

#[tokio::test]
async fn wrong_fields_and_parameters_are_named_all_at_once() {
    let app = TestApp::open().await;
    let mut task = comment("a");
    task["url"] = json!("file:///etc/passwd");
    task["priorty"] = json!(1);
    task["payload"]["email"] = json!("nobody");
    let refused = app.post("/runs", &task).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(errors(&refused), HashSet::from(["url", "priorty", "payload.email"].map(str::to_owned)));

    let refused = app.get("/runs?limit=1000000000&stauts=failed&since=-1&cursor=x").await;
    assert_eq!(refused.status, 400);
    assert_eq!(errors(&refused), HashSet::from(["limit", "stauts", "since", "cursor"].map(str::to_owned)));
    assert_eq!(refused.json()["request_id"], refused.header("x-request-id"));
    assert_eq!(app.get("/metrics/summary?range=1y").await.status, 400);
    assert_eq!(app.get("/runs/failed?status=pending").await.status, 400);
    assert_eq!(send(app.address, "POST", "/runs", &[JSON], "{").await.status, 400);
    let empty = send(app.address, "POST", "/runs", &[JSON], "").await;
    assert_eq!((empty.status.as_u16(), empty.text().contains("is empty")), (400, true), "{}", empty.text());
    // A program that forgot the header is told which; a page of another site can't send that one.
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let refused = send(app.address, "POST", "/runs", &[("content-type", kind)], &comment("a").to_string()).await;
        assert_eq!((refused.status.as_u16(), refused.text().contains("application/json")), (415, true), "{kind}");
    }
    let large = format!("\"{}\"", "x".repeat(1_200_000));
    assert_eq!(send(app.address, "POST", "/runs", &[JSON], &large).await.status, 413);
}

#[tokio::test]
async fn a_site_that_is_not_enrolled_is_refused_with_how_to_enrol_it() {
    let app = TestApp::open().await;
    let mut task = comment("a");
    task["url"] = json!("https://elsewhere.example/post");
    let refused = app.post("/runs", &task).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["code"], "policy.not_enrolled");
    assert!(refused.text().contains("pagehand site add https://elsewhere.example"), "{}", refused.text());
}

#[tokio::test]
async fn the_same_idempotency_key_adds_one_task_also_when_sent_at_the_same_time() {
    let app = TestApp::open().await;
    let key = ("idempotency-key", "order-17");
    let body = comment("a").to_string();
    let headers = [JSON, key];
    let sends = (0..8).map(|_| send(app.address, "POST", "/runs", &headers, &body));
    let answers = futures::future::join_all(sends).await;
    let ids: HashSet<i64> = answers.iter().map(|answer| answer.json()["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!(app.get("/runs").await.json()["runs"].as_array().unwrap().len(), 1);

    let other = send(app.address, "POST", "/runs", &[JSON, key], &comment("b").to_string()).await;
    assert_eq!(other.status, 422);
    assert_eq!(other.json()["type"], "urn:pagehand:problem:idempotency-key-reused");
}

#[tokio::test]
async fn pages_by_cursor_show_each_run_once_whatever_is_added_meanwhile() {
    let app = TestApp::open().await;
    let ids = app.enqueue(7).await;
    let mut seen = Vec::new();
    let mut path = "/runs?limit=3".to_owned();
    loop {
        let page = app.get(&path).await.json();
        seen.extend(page["runs"].as_array().unwrap().iter().map(|run| run["id"].as_i64().unwrap()));
        app.enqueue(1).await;
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/runs?limit=3&cursor={next}");
    }
    assert_eq!(seen, ids.into_iter().rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn filters_narrow_the_list_and_sql_in_them_is_only_text() {
    let app = TestApp::open().await;
    let failed = app.failed(2).await;
    app.enqueue(1).await;
    let ids = async |query: &str| {
        let answer = app.get(&format!("/runs?{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json()["runs"].as_array().unwrap().len()
    };
    assert_eq!(ids("status=failed").await, 2);
    assert_eq!(ids("failure_reason=timeout&failure_code=nav.timeout&site=https://example.org&since=1h").await, 2);
    assert_eq!(ids("status=pending&task_type=comment").await, 1);
    assert_eq!(ids("q=EXAMPLE.org%2Fp1").await, 1);
    let created = app.get("/runs").await.json()["runs"][2]["created_at"].as_str().unwrap().to_owned();
    let day: chrono::NaiveDate = created[..10].parse().unwrap();
    assert_eq!(ids(&format!("until={}", day.pred_opt().unwrap())).await, 0);
    assert!(ids(&format!("until={day}")).await > 0, "a day is in to its end");
    assert_eq!(ids(&format!("until={created}")).await, 0, "an instant is that instant");
    for text in ["'%3B%20DROP%20TABLE%20tasks%3B--", "%25", "_", "%5C", "%00", "%E2%80%A8"] {
        let answer = app.get(&format!("/runs?q={text}&task_type={text}")).await;
        assert!(answer.status.as_u16() < 500, "{text}: {}", answer.text());
    }
    assert_eq!(app.get("/runs/failed").await.json()["runs"].as_array().unwrap().len(), 2);
    let redirect = app.page(&format!("/runs?q={}", failed[0])).await;
    assert_eq!(redirect.header("location"), format!("/runs/{}", failed[0]));
}

#[tokio::test]
async fn only_a_failed_run_is_retried_and_of_two_clicks_one_counts() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    let path = format!("/runs/{id}/retry");
    let nothing = json!({});
    let (first, second) = tokio::join!(app.post(&path, &nothing), send(app.address, "POST", &path, &[], ""));
    let mut codes = [first.status.as_u16(), second.status.as_u16()];
    codes.sort_unstable();
    assert_eq!(codes, [202, 409]);
    assert_eq!(app.status(id).await, "pending");
    assert_eq!(app.post("/runs/999999/retry", &json!({})).await.status, 404);
    assert_eq!(app.post(&path, &json!({"confirm": true})).await.status, 422);
    let trail = app.get(&format!("/runs/{id}")).await.json()["trail"].clone();
    assert_eq!(trail.as_array().unwrap().len(), 1);
    assert_eq!((&trail[0]["who"], &trail[0]["action"]), (&json!("local"), &json!("run.retry")));
}

#[tokio::test]
async fn an_uncertain_run_is_retried_only_after_a_second_confirmation() {
    let app = TestApp::open().await;
    let id = app.enqueue(1).await[0];
    app.fail_all(&Failure::terminal(FailureReason::Unknown, "outcome.uncertain", "the answer was lost")).await;
    let path = format!("/runs/{id}/retry");
    let refused = app.post(&path, &json!({})).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (409, &json!("outcome.uncertain")));
    let asked = send(app.address, "POST", &path, &[HTML, FORM, SAME_ORIGIN], "").await;
    assert_eq!(asked.status, 409);
    assert!(asked.text().contains("name=\"confirm_uncertain\""), "{}", asked.text());
    assert_eq!(app.post("/runs/retry", &json!({})).await.json()["skipped"]["need_confirmation"], 1);
    assert_eq!(app.status(id).await, "failed");
    let sent = send(app.address, "POST", &path, &[HTML, FORM, SAME_ORIGIN], "confirm_uncertain=true").await;
    assert_eq!(sent.status, 303);
    assert_eq!(app.status(id).await, "pending");
}

#[tokio::test]
async fn a_retry_of_many_reports_what_was_left_and_why() {
    let app = TestApp::open().await;
    let ids = app.failed(3).await;
    let waiting = app.enqueue(1).await[0];
    let preview = app.get("/runs/retry?failure_reason=timeout").await.json();
    assert_eq!(preview["matching"], 3);
    let report = app.post("/runs/retry", &json!({"ids": [ids[0], waiting, 999_999]})).await.json();
    assert_eq!(report["retried"], 1);
    assert_eq!((&report["skipped"]["not_failed"], &report["skipped"]["not_found"]), (&json!(1), &json!(1)));
    assert_eq!(report["details"].as_array().unwrap().len(), 2);
    assert_eq!(app.post("/runs/retry", &json!({"failure_reason": "blocked"})).await.json()["retried"], 0);
    assert_eq!(app.post("/runs/retry", &json!({"status": "pending"})).await.status, 422);
    assert_eq!(app.post("/runs/retry?failure_code=nav.timeout", &json!({})).await.json()["retried"], 2);
    assert_eq!(app.get("/runs?status=pending").await.json()["runs"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_retry_of_none_is_not_a_retry_of_all() {
    let app = TestApp::open().await;
    let ids = app.failed(2).await;
    assert_eq!(app.post("/runs/retry", &json!({"ids": []})).await.json()["retried"], 0);
    // The page's form with no box ticked: what is hidden in it, and nothing else.
    let page = app.page("/runs").await.text();
    let form = page.split("<form id=\"picked\"").nth(1).unwrap().split("</form>").next().unwrap().to_owned();
    let hidden = regex::Regex::new("name=\"([^\"]*)\" value=\"([^\"]*)\"").unwrap();
    let body: Vec<String> = hidden.captures_iter(&form).map(|field| format!("{}={}", &field[1], &field[2])).collect();
    let answer = send(app.address, "POST", "/runs/retry", &[FORM, SAME_ORIGIN], &body.join("&")).await;
    assert_eq!(answer.json()["retried"], 0, "{form}");
    for empty in [json!({"failure_reason": []}), json!({"site": []})] {
        assert_eq!(app.post("/runs/retry", &empty).await.status, 422, "{empty}");
    }
    for id in ids {
        assert_eq!(app.status(id).await, "failed");
    }
}

#[tokio::test]
async fn a_pending_run_is_cancelled_and_an_ended_one_is_not() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    assert_eq!(app.post(&format!("/runs/{id}/cancel"), &json!({})).await.status, 409);
    let id = app.enqueue(1).await[0];
    let cancelled = app.post(&format!("/runs/{id}/cancel"), &json!({})).await;
    assert_eq!((cancelled.status.as_u16(), cancelled.json()), (202, json!({"id": id, "status": "cancelled"})));
}

#[tokio::test]
async fn the_summary_counts_what_is_on_record_and_leaves_p95_blank_under_twenty() {
    let app = TestApp::open().await;
    app.failed(3).await;
    let summary = app.get("/metrics/summary?range=7d").await.json();
    assert_eq!((&summary["range"], &summary["total_runs"]), (&json!("7d"), &json!(3)));
    assert_eq!((&summary["success_rate"], &summary["avg_tokens_per_run"]), (&json!(0.0), &json!(10.0)));
    assert_eq!((&summary["total_cost_usd"], &summary["wasted_cost_usd"]), (&json!(1.5), &json!(1.5)));
    assert!(summary["previous"]["total_cost_usd"].as_f64().unwrap().is_sign_positive(), "nothing is not minus nothing");
    assert_eq!((&summary["avg_latency_ms"], &summary["p95_latency_ms"]), (&json!(2000.0), &Value::Null));
    assert_eq!(summary["steps"][0]["failure_rate"], 1.0);
    assert_eq!(summary["failures"], json!([{"failure_reason": "timeout", "n": 3}]));
    app.failed(20).await;
    assert_eq!(app.get("/metrics/summary").await.json()["p95_latency_ms"], 2000.0);
    let groups = app.get("/failures").await.json();
    assert_eq!((&groups["groups"][0]["n"], &groups["groups"][0]["failure_code"]), (&json!(23), &json!("nav.timeout")));
}

#[tokio::test]
async fn whatever_a_task_a_worker_or_a_site_says_is_escaped_on_every_page() {
    let app = TestApp::open().await;
    let mut task = comment("a");
    task["url"] = json!(format!("https://example.org/?{HOSTILE}"));
    task["dedupe_key"] = json!(HOSTILE);
    task["payload"]["body"] = json!(HOSTILE);
    let id = app.post("/runs", &task).await.json()["id"].clone();
    app.fail_all(&timeout()).await;
    let query: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for path in [
        "/".to_owned(),
        format!("/runs/{id}"),
        "/dashboard".to_owned(),
        "/failures".to_owned(),
        format!("/runs?q={query}&task_type={query}&failure_code={query}"),
        format!("/runs/retry?q={query}"),
        format!("/runs?status={query}"),
        format!("/{query}"),
        "/workers".to_owned(),
        "/audit".to_owned(),
        format!("/failures?task_type={query}"),
        format!("/dashboard?range={query}"),
        format!("/runs/{query}"),
        format!("/runs/{id}/artifacts/{query}"),
    ] {
        let page = app.page(&path).await;
        let text = page.text();
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
        assert!(!text.contains("<img src=x") && !text.contains("<script>"), "{path}");
        assert!(page.header("content-security-policy").contains("script-src 'self'"), "{path}");
    }
}

#[tokio::test]
async fn every_answer_has_the_security_headers_and_an_id_and_none_allows_other_origins() {
    let app = TestApp::open().await;
    let mut answers = vec![app.get("/nowhere").await, send(app.address, "DELETE", "/runs", &[], "").await];
    for (method, pattern) in web::routes().into_iter().filter(|(_, path)| *path != "/events") {
        answers.push(send(app.address, &method, &example(pattern), &[("origin", "https://evil.example")], "").await);
        answers.push(send(app.address, "OPTIONS", &example(pattern), &[("origin", "https://evil.example")], "").await);
        answers.push(send(app.address, &method, &example(pattern), &[("host", "evil.example")], "").await);
    }
    let large = "x".repeat(1_200_000);
    answers.push(send(app.address, "POST", "/runs/retry", &[JSON], &large).await);
    let closed = TestApp::with_tokens().await;
    for (method, pattern) in web::routes() {
        answers.push(send(closed.address, &method, &example(pattern), &[JSON], "{}").await);
    }
    let found: HashSet<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert!([200, 401, 404, 405, 413, 421].iter().all(|status| found.contains(status)), "{found:?}");
    for answer in answers {
        for name in ["content-security-policy", "x-content-type-options", "x-request-id", "x-frame-options"] {
            assert!(!answer.header(name).is_empty(), "{name}: {answer:?}");
        }
        assert!(!answer.header("content-security-policy").contains("unsafe-inline") || answer.status == 200);
        assert_eq!(answer.header("access-control-allow-origin"), "");
        assert!(answer.status.as_u16() < 500, "{answer:?}");
    }
}

#[tokio::test]
async fn without_a_token_every_route_but_the_public_ones_answers_401() {
    let app = TestApp::with_tokens().await;
    let public =
        ["/healthz", "/login", "/favicon.ico", "/assets/pagehand.css", "/assets/pagehand.js", "/assets/icon.svg"];
    for (method, pattern) in web::routes() {
        let path = example(pattern);
        for header in [
            ("x-none", "x"),
            ("authorization", "Bearer wrong"),
            ("authorization", "Bearer "),
            ("authorization", "Basic b3BlcmF0ZS10b2tlbi0wMDAx"),
            ("authorization", "operate-token-0001"),
            ("cookie", "pagehand_session=guessed"),
            ("cookie", "pagehand_session=operate-token-0001"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-original-url", "/healthz"),
        ] {
            let answer = send(app.address, &method, &path, &[JSON, header], "{}").await;
            if !public.contains(&pattern) {
                if method == "GET" {
                    let head = send(app.address, "HEAD", &path, &[header], "").await;
                    assert_eq!(head.status, 401, "HEAD {path} {header:?}");
                }
                assert_eq!(answer.status, 401, "{method} {path} {header:?}");
            } else if method == "GET" {
                assert!(answer.status.is_success(), "{method} {path}");
            }
        }
    }
    for path in [
        "/runs/x/healthz",
        "//runs",
        "/RUNS",
        "/runs/..%2fhealthz",
        "/healthz/",
        "/healthz/x",
        "//healthz",
        "/HEALTHZ",
        "/healthz%2f",
        "/healthz;/runs",
        "/healthz/../runs",
        "/healthz/..%2fruns",
        "/assets/../runs",
        "/assets/..%2fruns",
        "/login/../metrics",
        "/./runs",
        "/%72uns",
        "/runs/1/artifacts/healthz",
        "/metrics/healthz",
        "/events?/healthz",
        "/runs?token=operate-token-0001",
        "/assets/",
        "/x",
        "/logins",
    ] {
        assert_eq!(app.get(path).await.status, 401, "{path}");
    }
    let page = app.page("/runs?status=failed").await;
    assert_eq!((page.status.as_u16(), page.header("location")), (303, "/login?next=%2Fruns%3Fstatus%3Dfailed"));
}

#[tokio::test]
async fn the_role_read_sees_everything_and_changes_nothing() {
    let app = TestApp::with_tokens().await;
    let id = app.failed(1).await[0];
    for (method, pattern) in web::routes() {
        let path = example(pattern).replace("/1", &format!("/{id}"));
        if pattern == "/events" || ["/login", "/logout"].contains(&pattern) {
            continue;
        }
        let answer = send(app.address, &method, &path, &[READ, JSON], "{}").await;
        assert_eq!(answer.status == 403, method != "GET", "{method} {path}: {}", answer.status);
    }
    assert_eq!(app.status(id).await, "failed");
    let page = send(app.address, "GET", &format!("/runs/{id}"), &[READ, HTML], "").await;
    assert!(!page.text().contains("/retry\""));
    assert_eq!(send(app.address, "POST", &format!("/runs/{id}/retry"), &[OPERATE], "").await.status, 202);
}

#[tokio::test]
async fn a_log_in_gives_a_strict_cookie_that_opens_the_pages_until_log_out() {
    let app = TestApp::with_tokens().await;
    let id = app.failed(1).await[0];
    let form = "token=operate-token-0001&next=%2Fruns";
    let done = send(app.address, "POST", "/login", &[HTML, FORM, SAME_ORIGIN], form).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, "/runs"));
    let set = done.header("set-cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains("Secure"), "{set}");
    let cookie = ("cookie", set.split(';').next().unwrap());
    assert_eq!(send(app.address, "GET", "/runs", &[HTML, cookie], "").await.status, 200);

    let retry = format!("/runs/{id}/retry");
    let foreign = send(app.address, "POST", &retry, &[cookie, FORM, ("sec-fetch-site", "cross-site")], "").await;
    assert_eq!(foreign.status, 403);
    assert_eq!(send(app.address, "POST", &retry, &[cookie, FORM, SAME_ORIGIN], "").await.status, 202);
    send(app.address, "POST", "/logout", &[cookie, FORM, SAME_ORIGIN], "").await;
    assert_eq!(send(app.address, "GET", "/runs", &[cookie], "").await.status, 401);
}

#[tokio::test]
async fn behind_tls_the_cookie_is_for_tls_only_and_a_log_in_never_keeps_a_number_from_before() {
    let app = TestApp::with_tokens().await;
    let form = "token=operate-token-0001&next=%2Fruns";
    let number = |cookie: &str| cookie.split(';').next().unwrap().to_owned();
    let log_in = async |more: (&str, &str), cookie: &str| {
        let headers = [HTML, FORM, SAME_ORIGIN, more, ("cookie", cookie)];
        let done = send(app.address, "POST", "/login", &headers, form).await;
        assert_eq!(done.status, 303, "{more:?}");
        done.header("set-cookie").to_owned()
    };
    let planted = "pagehand_session=planted-by-somebody-else";
    let mut before = number(&log_in(("x-none", "x"), planted).await);
    for more in [("origin", "https://pagehand.example.org"), ("x-forwarded-proto", "https")] {
        let set = log_in(more, &before).await;
        assert!(set.contains("; Secure") && set.contains("HttpOnly; SameSite=Strict"), "{more:?}: {set}");
        assert_ne!(number(&set), before);
        assert_eq!(send(app.address, "GET", "/runs", &[("cookie", &before)], "").await.status, 401, "the old one");
        before = number(&set);
        assert_eq!(send(app.address, "GET", "/runs", &[("cookie", &before)], "").await.status, 200);
    }
    assert_eq!(send(app.address, "GET", "/runs", &[("cookie", planted)], "").await.status, 401);
}

#[tokio::test]
async fn log_ins_are_refused_after_five_failures() {
    let app = TestApp::with_tokens().await;
    for _ in 0..5 {
        assert_eq!(app.post("/login", &json!({"token": "guess"})).await.status, 401);
    }
    let refused = app.post("/login", &json!({"token": "operate-token-0001"})).await;
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn another_site_in_the_operators_browser_changes_nothing() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        for (from, refused) in [
            (("sec-fetch-site", "cross-site"), 403),
            (("origin", "https://evil.example"), 403),
            (("origin", "null"), 403),
            (("x-none", "x"), 415),
        ] {
            for (_, pattern) in web::routes().into_iter().filter(|(method, path)| method == "POST" && *path != "/login")
            {
                let path = example(pattern).replace("/1", &format!("/{id}"));
                let answer = send(app.address, "POST", &path, &[("content-type", kind), from], "a=b").await;
                assert_eq!(answer.status, refused, "{kind} {from:?} {path}");
            }
        }
    }
    assert_eq!(app.status(id).await, "failed");
    for host in ["evil.example", "127.0.0.1.evil.example", "169.254.169.254"] {
        assert_eq!(send(app.address, "GET", "/runs", &[("host", host)], "").await.status, 421, "{host}");
    }
}

#[tokio::test]
async fn only_files_of_the_record_are_served_and_nothing_in_them_can_run() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    let dom = "error_dom_20240115T103000123Z.html";
    app.write(id, dom, "<script>alert(1)</script>");
    app.write(id, "screenshot.png", "<html><script>alert(1)</script>");
    app.write(id, "secret.txt", "secret");
    std::fs::write(app.runs.path().join("outside"), "outside").unwrap();
    let run = app.runs.path().join(id.to_string());
    std::os::unix::fs::symlink("/etc/passwd", run.join("report.html")).unwrap();

    let served = app.get(&format!("/runs/{id}/artifacts/{dom}")).await;
    assert_eq!(served.status, 200);
    let policy = served.header("content-security-policy");
    assert!(
        policy.starts_with("sandbox;") && policy.contains("default-src 'none'") && !policy.contains("allow-"),
        "{policy}"
    );
    assert_eq!(served.header("x-content-type-options"), "nosniff");
    let image = app.get(&format!("/runs/{id}/artifacts/screenshot.png")).await;
    assert_eq!((image.header("content-type"), image.header("x-content-type-options")), ("image/png", "nosniff"));
    assert!(image.header("content-security-policy").starts_with("sandbox;"));

    let long = "a".repeat(4096);
    for name in [
        "report.html",
        "secret.txt",
        "..%2foutside",
        "%2e%2e%2foutside",
        "..%5coutside",
        "%00",
        "init.json%00",
        "..;/outside",
        "%2fetc%2fpasswd",
        "%c0%ae%c0%ae%2foutside",
        "attempts%2f0%2finit.json",
        long.as_str(),
    ] {
        let answer = app.get(&format!("/runs/{id}/artifacts/{name}")).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{name}: {}", answer.status);
        assert!(!answer.text().contains("outside\n") && !answer.text().contains("root:"), "{name}");
    }
    for id in ["..%2f..%2fetc", "-1", "0", "01", "+1", "1e3", "99999999999999999999", "%2e%2e", "1%00"] {
        let answer = app.get(&format!("/runs/{id}/artifacts/init.json")).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{id}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_listener_hears_of_a_new_task_and_listeners_are_bounded() {
    let app = TestApp::open().await;
    let mut stream = open(app.address, "GET", "/events", &[], "").await.into_body();
    app.enqueue(1).await;
    let mut heard = String::new();
    while !heard.contains("\"pending\":1") {
        let frame = tokio::time::timeout(Duration::from_secs(10), stream.frame()).await.expect("an event in time");
        heard += &String::from_utf8_lossy(frame.unwrap().unwrap().data_ref().unwrap());
    }
    assert!(heard.contains("event: changed"), "{heard}");
    let mut others = Vec::new();
    for _ in 0..63 {
        others.push(open(app.address, "GET", "/events", &[], "").await);
    }
    assert!(others.iter().all(|answer| answer.status() == 200));
    assert_eq!(open(app.address, "GET", "/events", &[], "").await.status(), 503);
}

#[tokio::test]
async fn health_metrics_and_the_document_are_served() {
    let app = TestApp::open().await;
    app.failed(1).await;
    assert_eq!(app.get("/healthz").await.json(), json!({"status": "ok"}));
    assert_eq!(app.get("/readyz").await.status, 200);
    let metrics = app.get("/metrics").await.text();
    for line in [
        "pagehand_database_up 1",
        "pagehand_dead_letters{task_type=\"comment\"} 1",
        "pagehand_queue_depth{task_type=\"comment\",status=\"pending\"} 0",
        "pagehand_http_requests_total{route=\"/healthz\"",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(metrics.contains("# TYPE pagehand_http_requests_total counter\n") && !metrics.contains("# EOF"));
    let asked = send(app.address, "GET", "/metrics", &[("accept", "application/openmetrics-text")], "").await;
    assert!(asked.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    let openmetrics = asked.text();
    assert!(openmetrics.contains("# TYPE pagehand_http_requests counter\n"));
    assert!(openmetrics.ends_with("# EOF\n") && openmetrics.matches("# EOF").count() == 1);
    assert_eq!(app.get("/openapi.json").await.json()["openapi"].as_str().map(|version| &version[..2]), Some("3."));
    assert_eq!(send(app.address, "HEAD", "/runs", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_dead_database_is_said_and_the_process_is_still_healthy() {
    let app = TestApp::open().await;
    let shut = "UPDATE pg_database SET datallowconn = false WHERE datname = current_database()";
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut last = app.db.pool.acquire().await.unwrap();
    for statement in [shut, cut] {
        sqlx::query(statement).execute(&mut *last).await.unwrap();
    }
    assert_eq!(app.get("/healthz").await.status, 200);
    assert_eq!(app.get("/readyz").await.status, 503);
    let page = app.page("/runs/1").await;
    assert!(page.status.is_server_error());
    assert!(!page.text().contains("sqlx") && !page.text().contains(&app.db.url), "{}", page.text());
}

#[tokio::test]
async fn a_server_that_others_can_reach_does_not_start_without_tokens() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refused = web::Server::bind(settings(address, Vec::new()), queue.clone(), "runs".into()).await;
        assert!(matches!(refused, Err(WebError::OpenToOthers(_))), "{address}");
    }
    let token = |secret: &str| AccessToken { name: "a".to_owned(), role: Role::Read, secret: secret.to_owned().into() };
    for tokens in [vec![token("")], vec![token("same-secret"), token("same-secret")]] {
        let refused = web::Server::bind(settings("127.0.0.1:0", tokens), queue.clone(), "runs".into()).await;
        assert!(matches!(refused, Err(WebError::UnusableToken { .. })));
    }
}

#[tokio::test]
async fn filters_can_be_negated_and_a_run_without_a_failure_has_no_reason() {
    let app = TestApp::open().await;
    app.failed(2).await;
    app.enqueue(3).await;
    let found = async |query: &str| {
        let answer = app.get(&format!("/runs?{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json()["runs"].as_array().unwrap().len()
    };
    assert_eq!(found("not_status=failed").await, 3);
    assert_eq!(found("not_status=failed,pending").await, 0);
    assert_eq!(found("not_failure_reason=timeout").await, 3);
    assert_eq!(found("not_failure_reason=blocked&status=failed").await, 2);
    assert_eq!(found("not_failure_code=nav.timeout,a.b").await, 3);
    assert_eq!(found("not_site=https://example.org").await, 0);
    assert_eq!(found("not_task_type=registration&min_retries=0").await, 5);
    assert_eq!(found("min_retries=1").await, 0);
    let refused = app.get("/runs?not_status=broken&min_retries=-1").await;
    assert_eq!(errors(&refused), HashSet::from(["not_status", "min_retries"].map(str::to_owned)));
}

#[tokio::test]
async fn runs_are_exported_as_lines_and_as_a_table_in_which_no_formula_is_run() {
    let app = TestApp::open().await;
    app.enqueue(1).await;
    app.fail_all(&Failure::terminal(FailureReason::Unknown, "x.y", "=HYPERLINK(\"http://evil.example\")")).await;
    app.enqueue(250).await;
    let lines = app.get("/runs/export").await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let text = lines.text();
    let ids: HashSet<i64> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), 251);
    let table = app.get("/runs/export?format=csv&status=failed").await;
    assert!(table.header("content-disposition").starts_with("attachment"));
    let text = table.text();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.starts_with("id,task_type,status,url") && text.contains("\"'=HYPERLINK("), "{text}");
    assert_eq!(app.get("/runs/export?format=xls").await.status, 400);
}

#[tokio::test]
async fn a_run_directory_is_exported_whole_and_without_what_does_not_belong_there() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    app.write(id, "init.json", "{\"task_id\":1}");
    app.write(id, "steps.jsonl", &"{\"step\":\"x\"}\n".repeat(20_000));
    app.write(id, "secret.txt", "not ours");
    std::os::unix::fs::symlink("/etc/passwd", app.runs.path().join(id.to_string()).join("report.html")).unwrap();
    let answer = app.get(&format!("/runs/{id}/export")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/zip"));
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(answer.body.to_vec())).unwrap();
    let names: HashSet<String> = zip.file_names().map(str::to_owned).collect();
    assert_eq!(names, HashSet::from(["run.json", "init.json", "steps.jsonl"].map(|name| format!("run-{id}/{name}"))));
    let mut steps = String::new();
    std::io::Read::read_to_string(&mut zip.by_name(&format!("run-{id}/steps.jsonl")).unwrap(), &mut steps).unwrap();
    assert_eq!(steps.lines().count(), 20_000);
    assert_eq!(app.get("/runs/999999/export").await.status, 404);
}

#[tokio::test]
async fn workers_are_listed_with_what_each_is_doing() {
    let app = TestApp::open().await;
    let id = app.enqueue(1).await[0];
    let worker = WorkerIdentity { name: "w1".to_owned(), incarnation: "i1".to_owned() };
    let _presence = app.queue.be_present(&worker).await.unwrap();
    assert_eq!(app.get("/workers").await.json()["workers"][0]["tasks"], json!([]));
    app.queue.claim(&worker, 1, Duration::from_secs(60)).await.unwrap();
    let workers = app.get("/workers").await.json();
    let found = &workers["workers"][0];
    assert_eq!((&found["name"], &found["alive"], &found["tasks"][0]["id"]), (&json!("w1"), &json!(true), &json!(id)));
}

#[tokio::test]
async fn the_audit_trail_says_who_did_what() {
    let app = TestApp::with_tokens().await;
    let id = app.failed(1).await[0];
    let retried = send(app.address, "POST", &format!("/runs/{id}/retry"), &[OPERATE, JSON], "{}").await;
    assert_eq!(retried.status, 202);
    let audit = send(app.address, "GET", "/audit?limit=5", &[READ], "").await.json();
    let entry = &audit["entries"][0];
    assert_eq!(
        (&entry["who"], &entry["action"], &entry["subject"]),
        (&json!("ops"), &json!("run.retry"), &json!(id.to_string()))
    );
}
