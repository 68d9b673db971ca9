//! The pages as a server sends them: their numbers, where their links lead, what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: what fails here fails the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use pagehand::queue::{Outcome, REACH, RunFilter, Settlement, WorkerIdentity};
use pagehand::record::{REPORTING_STEPS, StepRecord};
use serde_json::{Value, json};

use app::{FORM, HTML, SAME_ORIGIN, TestApp};
use http_client::send;

#[path = "support/app.rs"]
mod app;
#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;

const SOON: Duration = Duration::from_secs(15);
/// No page is heavier, pictures apart.
const HEAVIEST: usize = 300_000;

/// The addresses of a page's links, as a browser reads them.
fn links(page: &str) -> BTreeSet<String> {
    let hrefs = page.split("<a ").skip(1).filter_map(|tag| tag.split_once("href=\"")?.1.split('"').next());
    hrefs.map(|href| href.replace("&amp;", "&")).filter(|href| href.starts_with('/')).collect()
}

#[tokio::test]
async fn every_link_of_every_page_leads_somewhere_and_no_page_is_heavy() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    app.enqueue(1).await;
    let worker = WorkerIdentity { name: "w1".to_owned(), incarnation: "i1".to_owned() };
    let _presence = app.queue.be_present(&worker).await.unwrap();
    app.queue.claim(&worker, 1, Duration::from_secs(60)).await.unwrap();
    app.dead_letters(600, 250).await;
    app.post(&format!("/runs/{id}/retry"), &json!({})).await;
    for path in [
        "/",
        "/runs?limit=200",
        "/runs?status=failed&not_site=https%3A%2F%2Fexample.org&since=30d&q=answer",
        "/dashboard?range=24h",
        "/dashboard?range=7d",
        "/dashboard?range=30d",
        "/failures",
        "/workers",
        "/audit",
        "/runs/retry?failure_reason=timeout",
        &format!("/runs/{id}"),
    ] {
        let page = app.page(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        assert!(page.body.len() < HEAVIEST, "{path}: {} bytes", page.body.len());
        let all = links(&page.text());
        assert!(all.len() > 4, "{path}: {all:?}");
        // Of rows that are alike one in forty.
        for href in
            all.iter().enumerate().filter(|(n, href)| !href.starts_with("/runs/") && n % 40 < 20).map(|(_, h)| h)
        {
            let found = app.page(href.split('#').next().unwrap()).await;
            assert!(found.status.is_success(), "{path} → {href}: {}", found.text());
        }
    }
}

#[tokio::test]
async fn what_a_list_shows_and_what_a_run_left_can_be_downloaded_from_their_pages() {
    let app = TestApp::open().await;
    let id = app.failed(3).await[0];
    app.enqueue(2).await;
    let list = links(&app.page("/runs?status=failed").await.text());
    let exports: Vec<&String> = list.iter().filter(|href| href.starts_with("/runs/export?")).collect();
    assert_eq!(exports.len(), 2, "{list:?}");
    for href in exports {
        let file = app.page(href).await;
        assert!(file.header("content-disposition").contains("attachment"), "{href}");
        let header = usize::from(href.contains("csv"));
        assert_eq!(file.text().lines().count(), 3 + header, "those that the filter lets through: {href}");
    }
    let run = links(&app.page(&format!("/runs/{id}")).await.text());
    let zip = run.iter().find(|href| href.ends_with("/export")).expect("a way to have the record");
    assert_eq!(app.page(zip).await.header("content-type"), "application/zip");
}

#[tokio::test]
async fn a_retry_of_many_says_in_words_which() {
    let app = TestApp::open().await;
    app.failed(2).await;
    let asked =
        app.page("/runs/retry?not_failure_reason=blocked&not_site=https%3A%2F%2Fa.example&min_retries=0").await.text();
    for words in ["without the reason <strong>blocked", "not on <strong>https://a.example", "at least <strong>0"] {
        assert!(asked.contains(words), "{words}: {asked}");
    }
}

/// Links to runs with what they stand on, tags left out.
fn links_to_runs(page: &str) -> Vec<(String, String)> {
    let tags = page.split("<a ").skip(1).filter_map(|tag| tag.split_once("</a>").map(|(link, _)| link));
    let links = tags.filter_map(|link| {
        let href = link.split_once("href=\"")?.1.split('"').next()?.replace("&amp;", "&");
        let text: String = link.split('>').skip(1).map(|part| part.split('<').next().unwrap_or_default()).collect();
        Some((href.strip_prefix("/runs?")?.to_owned(), text.replace('\u{2009}', "")))
    });
    links.collect()
}

/// Works off what is ready: each attempt looks, then submits, and ends as `outcome` says of its run and its number.
async fn work_off(app: &TestApp, outcome: impl Fn(i64, u32) -> Outcome) {
    let worker = WorkerIdentity { name: "w".to_owned(), incarnation: "w".to_owned() };
    loop {
        let claimed = app.queue.claim(&worker, 50, Duration::from_secs(60)).await.unwrap();
        if claimed.is_empty() {
            return;
        }
        for task in claimed {
            let outcome = outcome(task.task.id.0, task.task.retry_count);
            let completed = matches!(outcome, Outcome::Completed { .. });
            let step = |seq, name: &str, ms: u64, ok| StepRecord {
                seq,
                name: name.to_owned(),
                ok,
                started_at: task.locked_at,
                finished_at: task.locked_at,
                duration: Duration::from_millis(ms),
                tokens: if ms > 0 { 10 } else { 0 },
                cost_usd: if ms > 0 { 0.25 } else { 0.0 },
                error: None,
                meta: json!({}),
            };
            let looked = [step(1, "task_locked", 0, true), step(2, "look", 40, true)];
            // A first attempt that fails does not come to submit.
            let submits = completed || matches!(outcome, Outcome::Dead { .. });
            let submitted = submits.then(|| step(3, "submit", 900, completed));
            let steps = looked.into_iter().chain(submitted).collect();
            let execution_time = Duration::from_secs(2);
            let settlement = Settlement { lease: task.lease(), outcome, execution_time, steps, artifacts: Vec::new() };
            app.queue.settle(&[settlement]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn every_number_of_the_dashboard_leads_to_the_runs_that_it_is_of() {
    let app = TestApp::open().await;
    let dead = || Outcome::Dead { failure: app::timeout() };
    // Dead letters of the day before.
    app.enqueue(3).await;
    work_off(&app, |_, _| dead()).await;
    let sql = |sql: String| sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&app.db.pool);
    sql("UPDATE tasks SET created_at = created_at - interval '30 hours'".to_owned()).await.unwrap();
    let ids = app.enqueue(9).await;
    sql("UPDATE tasks SET max_retries = 1".to_owned()).await.unwrap();
    work_off(&app, |id, retry_count| match (id - ids[0], retry_count) {
        (0..2, 0) => Outcome::Retry { failure: app::timeout(), delay: Duration::ZERO },
        (0..6, _) => Outcome::Completed { result: json!({}) },
        _ => dead(),
    })
    .await;
    app.enqueue(1).await;
    let worker = WorkerIdentity { name: "w".to_owned(), incarnation: "w".to_owned() };
    assert_eq!(app.queue.claim(&worker, 1, Duration::from_secs(600)).await.unwrap().len(), 1);
    let waiting = app.enqueue(3).await;
    let later = "UPDATE tasks SET ready = false, run_at = clock_timestamp() + interval '1 hour' WHERE id =";
    sql(format!("{later} {}", waiting[0])).await.unwrap();

    let today = "created_at >= now() - interval '24 hours' AND";
    let before = "created_at < now() - interval '24 hours' AND";
    let over = "status IN ('completed', 'failed')";
    let ended = "EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = tasks.id AND a.status <> 'running')";
    let lossy = "EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = tasks.id AND a.status = 'failed')";
    let took = |step: &str, which: &str| {
        format!("EXISTS (SELECT 1 FROM steps s WHERE s.task_id = tasks.id AND s.name = '{step}' AND {which})")
    };
    let (over_now, over_before) = ("since=24h&not_status=pending,running,cancelled", "since=48h&until=24h");
    // Where the number counts runs, it is theirs; tokens, and how often a step was taken, are not.
    let mut expected: Vec<(String, String, bool)> = [
        ("status=pending&only=ready", "status = 'pending' AND run_at <= now()".to_owned(), true),
        ("status=pending&only=scheduled", "status = 'pending' AND run_at > now()".to_owned(), true),
        ("status=running", "status = 'running'".to_owned(), true),
        ("since=24h", format!("{today} true"), true),
        ("since=24h&status=completed", format!("{today} status = 'completed'"), true),
        ("since=24h&status=failed", format!("{today} status = 'failed'"), true),
        ("since=24h&only=wasted", format!("{today} {lossy}"), true),
        ("since=24h&only=executed", format!("{today} {ended}"), false),
        (over_now, format!("{today} {over}"), true),
        (&format!("{over_now}&only=executed"), format!("{today} {over} AND {ended}"), true),
        (over_before, format!("{before} true"), true),
        (&format!("{over_before}&status=failed"), format!("{before} status = 'failed'"), true),
        (&format!("{over_before}&only=executed"), format!("{before} {ended}"), false),
        (&format!("{over_before}&not_status=pending,running,cancelled"), format!("{before} {over}"), true),
        (
            &format!("{over_before}&not_status=pending,running,cancelled&only=executed"),
            format!("{before} {over} AND {ended}"),
            true,
        ),
        ("status=failed&failure_reason=timeout&since=24h", format!("{today} status = 'failed'"), true),
        ("status=failed&failure_reason=timeout&since=48h&until=24h", format!("{before} status = 'failed'"), true),
        ("failed_step=submit&since=24h", format!("{today} {}", took("submit", "NOT s.ok")), false),
    ]
    .map(|(query, condition, counts)| (query.to_owned(), condition, counts))
    .into();
    for step in ["task_locked", "look", "submit"] {
        let mut add = |query: String, which: &str| {
            expected.push((query, format!("{today} {}", took(step, which)), false));
        };
        add(format!("step={step}&since=24h"), "true");
        if step != "task_locked" {
            add(format!("step={step}&since=24h&min_retries=1"), "s.retry_count >= 1");
        }
    }

    let page = app.page("/dashboard?range=24h").await.text();
    let on_page = links_to_runs(&page);
    let listed = async |query: &str| {
        let list = app.get(&format!("/runs?{query}&limit=200")).await;
        list.json()["runs"].as_array().unwrap_or_else(|| panic!("{query}: {}", list.text())).len() as i64
    };
    for (query, condition, counts) in &expected {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM tasks WHERE {condition}"));
        let n: i64 = sqlx::query_scalar(count).fetch_one(&app.db.pool).await.unwrap();
        assert!(n > 0 && listed(query).await == n, "{query}: {n}, listed {}", listed(query).await);
        let here: Vec<&String> = on_page.iter().filter(|(to, _)| to == query).map(|(_, text)| text).collect();
        assert!(!here.is_empty(), "nothing leads to {query}: {on_page:?}");
        let numbers = here.iter().filter_map(|text| text.parse::<i64>().ok()).filter(|_| *counts);
        assert!(numbers.clone().all(|number| number == n), "{query}: {here:?}, listed {n}");
    }
    for (query, text) in &on_page {
        // A bar of a chart is of a time of its own.
        if query.starts_with("since=2") && query.contains("T") {
            assert_eq!(text.parse(), Ok(listed(query).await), "{query}");
        } else {
            assert!(expected.iter().any(|(known, ..)| known == query), "{query} ({text}) is not tested");
        }
    }
    // What has no link is no number, or says of a link beside it how old or how much more it is.
    for number in ["was ", " of "] {
        assert!(page.contains(&format!("{number}<a ")), "{number} {page}");
    }
    assert!(page.contains("none: nothing is worked off"), "no worker is there");
}

#[tokio::test]
async fn a_worker_that_ended_as_told_is_no_lost_one() {
    let app = TestApp::open().await;
    let worker = |name: &str| WorkerIdentity { name: name.to_owned(), incarnation: name.to_owned() };
    let told = app.queue.be_present(&worker("told")).await.unwrap();
    let killed = app.queue.be_present(&worker("killed")).await.unwrap();
    let _alive = app.queue.be_present(&worker("alive")).await.unwrap();
    told.end().await;
    drop(killed);
    sqlx::query("UPDATE workers SET seen_at = now() - interval '1 minute' WHERE name = 'killed'")
        .execute(&app.db.pool)
        .await
        .unwrap();
    let workers = app.get("/workers").await.json();
    let states: Vec<(&str, bool, bool)> = workers["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["alive"] == json!(true), one["stopped_at"].is_string()))
        .collect();
    assert_eq!(states, [("alive", true, false), ("killed", false, false), ("told", false, true)]);
    let page = app.page("/workers").await.text();
    assert!(page.contains("1 alive, <span class=\"bad\">1 lost</span>, 1 stopped within the last hour"), "{page}");
    assert_eq!((page.matches("lost, last seen ").count(), page.matches("stopped <time").count()), (1, 1), "{page}");
    let dashboard = app.page("/dashboard").await.text();
    assert!(dashboard.contains("href=\"/workers\">1 lost</a> within the hour"), "{dashboard}");
}

#[tokio::test]
async fn a_group_of_failures_has_its_trend_and_where_it_went_wrong() {
    let app = TestApp::open().await;
    app.failed(2).await;
    app.dead_letters(300, 1).await;
    // The same failure on the same site, at another step.
    app.enqueue(1).await;
    work_off(&app, |_, _| Outcome::Dead { failure: app::timeout() }).await;
    sqlx::query("UPDATE steps SET name = 'press' WHERE NOT ok AND seq = 3").execute(&app.db.pool).await.unwrap();
    sqlx::query("UPDATE tasks SET stuck_at = where_stuck(id) WHERE status = 'failed'")
        .execute(&app.db.pool)
        .await
        .unwrap();
    let groups = app.get("/failures").await.json();
    let of = |site: &str, step: Value| {
        let mut groups = groups["groups"].as_array().unwrap().iter();
        groups.find(|group| group["site"] == site && group["step"] == step).unwrap_or(&Value::Null).clone()
    };
    let own = of("https://example.org", json!("submit"));
    assert_eq!((&own["n"], &of("https://example.org", json!("press"))["n"]), (&json!(2), &json!(1)), "{groups}");
    let trend: Vec<i64> = own["trend"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    assert_eq!((trend.len(), trend[13]), (14, 2));
    // One an hour for 300 hours, which is less than 14 days.
    let spread = of("https://s0.example", Value::Null);
    let sum: i64 = spread["trend"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).sum();
    assert_eq!((sum, &spread["trend"][5]), (300, &json!(24)));

    // Each leads to its runs, and to the retry of just these.
    let page = app.page("/failures").await.text();
    let mut counts = Vec::new();
    for (query, text) in links_to_runs(&page) {
        let n: i64 = text.split(' ').next().unwrap().parse().unwrap();
        let (mut found, mut next) = (0, String::new());
        while let Some(cursor) = Some(&next).filter(|_| found == 0 || !next.is_empty()) {
            let list = app.get(&format!("/runs?{query}&limit=200{cursor}")).await.json();
            found += list["runs"].as_array().unwrap().len() as i64;
            next = list["next"].as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
        }
        let retry = query.strip_prefix("status=failed&").unwrap();
        assert_eq!(
            (found, &app.get(&format!("/runs/retry?{retry}")).await.json()["matching"]),
            (n, &json!(n)),
            "{query}"
        );
        assert!(page.contains(&format!("/runs/retry?{}", retry.replace('&', "&amp;"))), "{query}");
        counts.push(n);
    }
    assert_eq!(counts, [300, 2, 1]);
}

#[tokio::test]
async fn a_dead_letter_remembers_the_step_at_which_it_died() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    let stuck = async || -> Option<String> {
        sqlx::query_scalar("SELECT stuck_at FROM tasks WHERE id = $1").bind(id).fetch_one(&app.db.pool).await.unwrap()
    };
    assert_eq!(stuck().await.as_deref(), Some("submit"));
    // What only reports a failure is the same for Postgres.
    let function = "SELECT pg_get_functiondef('where_stuck'::regproc)";
    let function: String = sqlx::query_scalar(function).fetch_one(&app.db.pool).await.unwrap();
    let quoted: BTreeSet<&str> = function.split('\'').skip(1).step_by(2).collect();
    assert_eq!(quoted, BTreeSet::from(REPORTING_STEPS));
    // And after a retry where it died then.
    app.post(&format!("/runs/{id}/retry"), &json!({})).await;
    let worker = WorkerIdentity { name: "w".to_owned(), incarnation: "w".to_owned() };
    let task = app.queue.claim(&worker, 1, Duration::from_secs(60)).await.unwrap().remove(0);
    let outcome = Outcome::Dead { failure: app::timeout() };
    let (execution_time, steps, artifacts) = (Duration::ZERO, Vec::new(), Vec::new());
    let settlement = Settlement { lease: task.lease(), outcome, execution_time, steps, artifacts };
    app.queue.settle(&[settlement]).await.unwrap();
    assert_eq!(stuck().await, None);
    assert_eq!(app.get("/runs?stuck_at=none").await.json()["runs"][0]["id"], id);
}

/// Width and height that a JPEG says it has.
fn jpeg_size(jpeg: &[u8]) -> (u16, u16) {
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).expect("a frame header");
    let word = |at: usize| u16::from_be_bytes([jpeg[frame + at], jpeg[frame + at + 1]]);
    (word(7), word(5))
}

/// The check of a PNG's chunk.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[tokio::test]
async fn a_screenshot_is_also_there_small_and_what_is_no_picture_is_not() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    let (name, lie) = ("error_screenshot_20240115T103000123Z.png", "final_screenshot_20240115T103000124Z.png");
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 1280, 3000);
    encoder.set_color(png::ColorType::Rgb);
    // Noise does not shrink by itself.
    let pixels: Vec<u8> = (0..1280 * 3000 * 3_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    let directory = app.runs.path().join(id.to_string());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(name), &png).unwrap();
    std::fs::write(directory.join(lie), "<script>alert(1)</script>").unwrap();
    for (size, expected, most) in [("small", (192, 120), 20_000), ("large", (640, 400), 160_000)] {
        let small = app.get(&format!("/runs/{id}/artifacts/{name}?size={size}")).await;
        assert_eq!((small.status.as_u16(), small.header("content-type")), (200, "image/jpeg"));
        assert_eq!(jpeg_size(&small.body), expected);
        assert!(small.body.len() < most, "{size}: {} bytes", small.body.len());
        assert!(small.header("cache-control").contains("immutable"));
    }
    assert_eq!(app.get(&format!("/runs/{id}/artifacts/{name}")).await.body.len(), png.len());
    assert_eq!(app.get(&format!("/runs/{id}/artifacts/{lie}?size=small")).await.status, 404);
    let (wide, mut png) = ("initial_screenshot_20240115T103000125Z.png", Vec::new());
    let mut encoder = png::Encoder::new(&mut png, 8_193, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[0; 8_193]).unwrap();
    std::fs::write(directory.join(wide), &png).unwrap();
    assert_eq!(app.get(&format!("/runs/{id}/artifacts/{wide}?size=small")).await.status, 404);
    assert_eq!(app.get(&format!("/runs/{id}/artifacts/{name}?size=huge")).await.status, 400);
    // Fifty thousand pixels a side, which are ten gigabytes, in a few bytes.
    let chunk = |kind: &[u8], content: &[u8]| {
        let named = [kind, content].concat();
        [&(content.len() as u32).to_be_bytes()[..], &named, &crc32(&named).to_be_bytes()].concat()
    };
    let header = [&50_000_u32.to_be_bytes()[..], &50_000_u32.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    let bomb =
        [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..], &chunk(b"IDAT", &[0x78, 0x9c]), &chunk(b"IEND", b"")];
    let bombs = "final_screenshot_20240115T103000126Z.png";
    std::fs::write(directory.join(bombs), bomb.concat()).unwrap();
    for size in ["small", "large"] {
        assert_eq!(app.get(&format!("/runs/{id}/artifacts/{bombs}?size={size}")).await.status, 404);
    }
    assert_eq!(
        app.get(&format!("/runs/{id}/artifacts/{bombs}")).await.body,
        bomb.concat(),
        "as it is, to whoever asks"
    );
}

#[tokio::test]
async fn a_retry_of_thousands_says_how_far_it_is_and_in_the_end_what_was_left() {
    let app = TestApp::open().await;
    app.dead_letters(2_500, 3).await;
    sqlx::query("UPDATE tasks SET failure_code = 'outcome.uncertain' WHERE id % 100 = 0")
        .execute(&app.db.pool)
        .await
        .unwrap();
    let asked = app.page("/runs/retry?failure_reason=timeout").await.text();
    assert!(asked.contains("Retry 2\u{2009}500 failed runs?"), "{asked}");
    let mut page = asked;
    let mut shown = Vec::new();
    for _ in 0..3 {
        let body = app::fields(&page, "/runs/retry");
        page = send(app.address, "POST", "/runs/retry", &[HTML, FORM, SAME_ORIGIN], &body).await.text();
        shown.push(page.split("<h1>").nth(1).unwrap().split("</h1>").next().unwrap().to_owned());
    }
    let expected = ["Retrying: 1 000 of 2 500", "Retrying: 2 000 of 2 500", "2 475 runs back in the queue"];
    assert_eq!(shown.iter().map(|text| text.replace('\u{2009}', " ")).collect::<Vec<_>>(), expected);
    assert!(page.contains("<strong>25 left as they are:"), "{page}");
    assert_eq!(app.get("/runs/retry").await.json()["matching"], 25);
}

#[tokio::test]
async fn a_run_shows_what_its_page_asked_for_and_said() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    let request = |n: usize| {
        let status = if n == 390 { 503 } else { 200 };
        json!({"at": "2024-01-15T10:30:01.000Z", "method": "GET", "url": format!("https://example.org/{n}?<b>"),
               "resource": "Image", "status": status, "bytes": 10, "duration_ms": 4.2, "error": null})
    };
    let network = json!({"requests": (0..400).map(request).collect::<Vec<_>>(), "not_kept": 7});
    let line = json!({"at": "2024-01-15T10:30:01.000Z", "level": "exception", "text": "<script>lost</script>"});
    for (kind, content) in [("network", network), ("console", json!({"lines": [line], "not_kept": 0}))] {
        let name = format!("{kind}_20240115T103000123Z.json");
        app.write(id, &name, &content.to_string());
        sqlx::query("INSERT INTO artifacts SELECT id, $2, task_id, $3, 1 FROM attempts WHERE task_id = $1")
            .bind(id)
            .bind(&name)
            .bind(kind)
            .execute(&app.db.pool)
            .await
            .unwrap();
        assert_eq!(app.get(&format!("/runs/{id}/artifacts/{name}")).await.json(), content);
    }
    let page = app.page(&format!("/runs/{id}")).await.text();
    for expected in [
        "Network: 400 requests",
        ", 1 failed",
        "https://example.org/390?&lt;b&gt;",
        "250 more are in the file.",
        "7 came after these and were not kept.",
        "Console: 1 line",
        "&lt;script&gt;lost",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(page.len() < HEAVIEST);
}

#[tokio::test]
async fn a_text_is_looked_for_in_so_many_runs_at_a_time_and_the_next_page_goes_on() {
    let app = TestApp::open().await;
    sqlx::query(
        "INSERT INTO tasks (task_type, url, site, payload, status, finished_at)
         SELECT 'comment', CASE k WHEN 5 THEN 'https://example.org/needle' ELSE 'https://example.org/hay' END,
                'https://example.org', '{}', 'completed', now() FROM generate_series(1, $1) k",
    )
    .bind(REACH + 10)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let first = app.get("/runs?q=Needle").await.json();
    assert_eq!(first["runs"], json!([]));
    let next = first["next"].as_str().expect("older ones were not looked at");
    let second = app.get(&format!("/runs?q=Needle&cursor={next}")).await.json();
    assert_eq!((&second["runs"][0]["url"], &second["next"]), (&json!("https://example.org/needle"), &Value::Null));
    let page = app.page("/runs?q=Needle").await.text();
    assert!(page.contains("Older ones were not looked at yet") && page.contains("rel=\"next\""), "{page}");
    let hay = app.get("/runs?q=hay&limit=3").await.json();
    assert_eq!(hay["runs"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_step_is_looked_up_in_fewer_runs_at_a_time_and_the_next_page_goes_on() {
    let app = TestApp::open().await;
    let filter = RunFilter { step: Some("needle".to_owned()), ..RunFilter::default() };
    let reach = filter.reach().expect("no index knows steps");
    for statement in [
        "INSERT INTO tasks (task_type, url, site, payload, status, finished_at)
         SELECT 'comment', 'https://example.org/', 'https://example.org', '{}', 'completed', now() FROM generate_series(1, $1) k",
        "INSERT INTO attempts (task_id, site, retry_count, worker, incarnation, claim, status, started_at, finished_at)
         SELECT 5, 'https://example.org', 0, 'w', 'i', 1, 'succeeded', now(), now() WHERE $1 > 0",
        "INSERT INTO steps (attempt_id, seq, task_id, retry_count, name, ok, started_at, finished_at, duration_ms, tokens, cost_usd, meta)
         SELECT id, 1, 5, 0, 'needle', true, now(), now(), 1, 0, 0, '{}' FROM attempts WHERE $1 > 0",
    ] {
        sqlx::query(statement).bind(reach + 10).execute(&app.db.pool).await.unwrap();
    }
    let first = app.get("/runs?step=needle").await.json();
    assert_eq!(first["runs"], json!([]));
    let next = first["next"].as_str().expect("older ones were not looked at");
    let second = app.get(&format!("/runs?step=needle&cursor={next}")).await.json();
    assert_eq!((&second["runs"][0]["id"], &second["next"]), (&json!(5), &Value::Null));
}

#[tokio::test]
async fn a_time_is_found_by_the_numbers_also_where_a_few_do_not_follow_it() {
    let app = TestApp::open().await;
    sqlx::query(
        "INSERT INTO tasks (task_type, url, site, payload, status, finished_at, created_at)
         SELECT 'comment', 'https://example.org/', 'https://example.org', '{}', 'completed', now(),
                '2024-01-01Z'::timestamptz + CASE k WHEN 50000 THEN 0 ELSE k END * interval '1 second'
         FROM generate_series(1, 60000) k",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    let ids = async |query: &str| {
        let list = app.get(&format!("/runs?limit=200&{query}")).await.json();
        list["runs"].as_array().unwrap().iter().map(|run| run["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let expected: Vec<i64> = [50_000].into_iter().chain((1..100).rev()).collect();
    assert_eq!(ids("until=2024-01-01T00:01:40Z").await, expected);
    assert_eq!(ids("since=2024-01-01T00:01:38Z&until=2024-01-01T00:01:40Z").await, [99, 98]);
    assert_eq!(ids("until=2023-12-31").await, [0; 0]);
    assert_eq!(ids("until=2999-01-01").await[0], 60_000);
    let page = app.page("/runs?until=2024-01-01T00:01:40Z").await.text();
    assert!(page.contains("completed <span class=\"n\">100</span>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_posts_a_task_over_http_and_follows_it_to_its_end() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        eprintln!("curl is not installed: scripts/follow is not tested");
        return;
    }
    let app = TestApp::open().await;
    let task = app.runs.path().join("task.json");
    std::fs::write(&task, app::comment("followed").to_string()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/follow");
    let following = tokio::process::Command::new(script).arg(&task).arg(format!("http://{}", app.address)).output();
    let following = tokio::spawn(following);
    let posted = async {
        while app.get("/runs").await.json()["runs"] == json!([]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, posted).await.expect("the task is posted");
    app.fail_all(&app::timeout()).await;
    let output = tokio::time::timeout(SOON, following).await.unwrap().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("failed, attempt 1, nav.timeout"), "{said}");
}
