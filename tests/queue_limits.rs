//! Limits and turns: how many tasks a site sees at once and in a minute, over all workers, and who comes first.
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::collections::HashMap;
use std::time::Duration;

use pagehand::failure::{Failure, FailureReason};
use pagehand::queue::{NewProxy, Outcome, Queue, QueueError, SiteRefusal};
use pagehand::site::{NewEnrolment, Origin};
use pagehand::task::{Lease, NewTask, TaskId};

use database::TestDb;
use tasks::*;

#[path = "support/database.rs"]
mod database;
#[path = "support/tasks.rs"]
mod tasks;

fn sites_of(claimed: &[pagehand::queue::Claimed]) -> HashMap<&str, usize> {
    let mut sites = HashMap::new();
    for one in claimed {
        *sites.entry(one.task.site.as_str()).or_default() += 1;
    }
    sites
}

/// `n` workers with connections of their own that claim at the same moment, `rounds` times; the most that ran at once.
async fn claim_together(db: &TestDb, n: usize, rounds: usize, limit: u32) -> usize {
    let mut queues: Vec<Queue> = Vec::new();
    for _ in 0..n {
        queues.push(db.queue().await);
    }
    let mut taken = 0;
    for _ in 0..rounds {
        let claims = queues.iter().map(|queue| queue.claim(&EVERYBODY, limit, LEASE));
        taken += futures::future::try_join_all(claims).await.unwrap().iter().map(Vec::len).sum::<usize>();
    }
    taken
}

static EVERYBODY: std::sync::LazyLock<pagehand::queue::WorkerIdentity> = std::sync::LazyLock::new(|| worker("w"));

#[tokio::test]
async fn site_limits_hold_across_workers() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    queue.add_site(&site(SITE, Some(5), None)).await.unwrap();
    enqueue(&queue, 100).await;
    assert_eq!(claim_together(&db, 8, 3, 4).await, 5);
    assert_eq!(queue.live().await.unwrap().running, 5);
}

#[tokio::test]
async fn the_pace_of_a_site_holds_across_workers() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    queue.add_site(&site(SITE, None, Some(7))).await.unwrap();
    enqueue(&queue, 100).await;
    assert_eq!(claim_together(&db, 8, 3, 4).await, 7);
    sqlx::query("UPDATE attempts SET started_at = started_at - interval '61 seconds' WHERE id <= 3")
        .execute(&db.pool)
        .await
        .unwrap();
    assert_eq!(claim_together(&db, 8, 1, 4).await, 3, "as many as a minute has passed for");
}

#[tokio::test]
async fn a_site_that_refuses_several_tasks_for_their_haste_is_slowed_down() {
    let flood = || {
        let failure = Failure::retryable(FailureReason::Blocked, "form.flood", "You are posting comments too quickly.");
        Outcome::Retry { failure, delay: Duration::ZERO }
    };
    let db = TestDb::new().await;
    let queue = db.queue().await;
    queue.add_site(&site(SITE, None, None)).await.unwrap();
    enqueue(&queue, 20).await;
    // The same task again and again: it is not the site's pace that is wrong.
    let again = enqueue_urgent(&queue).await;
    for _ in 0..3 {
        let claimed = claim_one(&queue).await;
        assert_eq!(claimed.task.id, again);
        settle(&queue, claimed.lease(), flood()).await;
    }
    let claimed = claim(&queue, 3).await;
    assert_eq!(claimed.len(), 3);
    for one in &claimed {
        settle(&queue, one.lease(), flood()).await;
    }
    assert_eq!(claim(&queue, 4).await.len(), 0, "one has begun in the last twenty seconds");
    let age = async |seconds: f64| {
        let sql = "UPDATE attempts SET started_at = started_at - make_interval(secs => $1),
                                       finished_at = finished_at - make_interval(secs => $1)";
        sqlx::query(sql).bind(seconds).execute(&db.pool).await.unwrap();
    };
    age(21.0).await;
    assert_eq!(claim(&queue, 4).await.len(), 1);
    assert_eq!(claim(&queue, 4).await.len(), 0);
    age(120.0).await;
    assert_eq!(claim(&queue, 4).await.len(), 4, "that was long ago");
}

async fn enqueue_urgent(queue: &Queue) -> TaskId {
    add(queue, &[NewTask { priority: 9, ..task() }]).await[0]
}

#[tokio::test]
async fn a_slot_comes_back_when_its_task_ends_or_its_lease_runs_out() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    queue.add_site(&site(SITE, Some(2), None)).await.unwrap();
    enqueue(&queue, 10).await;
    let claimed = claim(&queue, 10).await;
    assert_eq!(claimed.len(), 2);
    settle(&queue, claimed[0].lease(), completed()).await;
    assert_eq!(claim(&queue, 10).await.len(), 1);
    sqlx::query("UPDATE tasks SET lease_expires_at = now() WHERE lease_owner IS NOT NULL")
        .execute(&db.pool)
        .await
        .unwrap();
    assert_eq!(claim(&queue, 10).await.len(), 2, "a crash leaks no slot, even before anybody has reaped it");
}

#[tokio::test]
async fn tasks_of_sites_that_are_not_enrolled_are_claimed_to_be_refused() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let mut ended = site("https://ended.example", Some(1), None);
    ended.authorized_until = Some(queue.now().await.unwrap() - Duration::from_secs(1));
    queue.add_site(&ended).await.unwrap();
    queue.add_site(&site("https://removed.example", Some(1), None)).await.unwrap();
    assert!(queue.remove_site(&"https://removed.example".parse().unwrap(), "Ann").await.unwrap());
    let tasks = ["https://never.example", "https://ended.example", "https://removed.example"].map(task_on);
    add(&queue, &[tasks.to_vec(), tasks.to_vec()].concat()).await;
    assert_eq!(claim(&queue, 10).await.len(), 6);
}

#[tokio::test]
async fn sites_share_the_slots_of_a_claim_evenly() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let mut tasks = vec![task_on("https://big.example"); 100];
    tasks.extend(vec![task_on("https://small.example"); 3]);
    tasks.extend(vec![task_on("https://middle.example"); 20]);
    add(&queue, &tasks).await;
    let claimed = claim(&queue, 30).await;
    let sites = sites_of(&claimed);
    assert_eq!(sites["https://small.example"], 3);
    assert!(sites["https://big.example"].abs_diff(sites["https://middle.example"]) <= 1, "{sites:?}");
    assert_eq!(claimed.len(), 30, "what one site can't use goes to the others");
}

#[tokio::test]
async fn sites_take_turns_when_one_task_is_claimed_at_a_time() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let mut tasks = vec![task_on("https://a.example"); 50];
    tasks.extend(vec![task_on("https://b.example"); 50]);
    tasks.extend(vec![task_on("https://c.example"); 50]);
    add(&queue, &tasks).await;
    let mut claimed = Vec::new();
    for _ in 0..30 {
        claimed.push(claim_one(&queue).await);
    }
    assert!(sites_of(&claimed).values().all(|n| *n == 10), "{:?}", sites_of(&claimed));
}

#[tokio::test]
async fn a_site_at_its_limit_does_not_hold_up_the_others() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    queue.add_site(&site(SITE, Some(1), None)).await.unwrap();
    let urgent = NewTask { priority: 10, ..task() };
    add(&queue, &vec![urgent; 50]).await;
    add(&queue, &vec![task_on("https://other.example"); 5]).await;
    let claimed = claim(&queue, 10).await;
    assert_eq!(sites_of(&claimed), HashMap::from([(SITE, 1), ("https://other.example", 5)]));
}

#[tokio::test]
async fn the_higher_priority_goes_first_and_then_the_earlier_run_at() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let now = queue.now().await.unwrap();
    let at = |priority, minutes: u64| NewTask {
        priority,
        run_at: Some(now - Duration::from_secs(60 * minutes)),
        ..task_on(if minutes.is_multiple_of(2) { SITE } else { "https://other.example" })
    };
    let ids = add(&queue, &[at(0, 2), at(5, 2), at(0, 4), at(5, 4), at(-1, 3), at(7, 1)]).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(claim_one(&queue).await.task.id);
    }
    assert_eq!(order, [5, 3, 1, 2, 0, 4].map(|n: usize| ids[n]));
}

#[tokio::test]
async fn no_task_is_left_behind_when_many_claim_from_many_sites() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let mut tasks = Vec::new();
    for n in 0..40 {
        let origin = format!("https://site-{n}.example");
        queue.add_site(&site(&origin, Some(100), None)).await.unwrap();
        tasks.extend(vec![NewTask { priority: n % 3, ..task_on(&origin) }; 10]);
    }
    add(&queue, &tasks).await;
    let workers = (0..6).map(|_| async {
        let queue = db.queue().await;
        let mut n = 0;
        loop {
            let claimed = claim(&queue, 7).await;
            if claimed.is_empty() && queue.live().await.unwrap().pending == 0 {
                return n;
            }
            n += claimed.len();
        }
    });
    let each: Vec<usize> = futures::future::join_all(workers).await;
    assert_eq!(each.iter().sum::<usize>(), 400, "{each:?}");
}

#[tokio::test]
async fn an_enrolment_is_replaced_removed_and_kept_on_record() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let origin: Origin = SITE.parse().unwrap();
    assert_eq!(queue.enrolment(SITE).await.unwrap(), None);
    queue.add_site(&site(SITE, Some(8), None)).await.unwrap();
    queue.add_site(&site(SITE, None, Some(3))).await.unwrap();
    let listed = queue.sites().await.unwrap();
    assert_eq!((listed.len(), listed[0].max_concurrency, listed[0].per_minute), (1, None, Some(3)));
    assert!(queue.remove_site(&origin, "Ann").await.unwrap());
    assert!(!queue.remove_site(&origin, "Ann").await.unwrap());
    assert!(queue.sites().await.unwrap().is_empty());
    let (removed, now) = queue.enrolment(SITE).await.unwrap().unwrap();
    assert!(removed.check_active(now).is_err());
    queue.add_site(&site(SITE, Some(8), None)).await.unwrap();
    let (again, now) = queue.enrolment(SITE).await.unwrap().unwrap();
    assert_eq!(again.check_active(now), Ok(()));
    assert_eq!(queue.audit(10).await.unwrap().iter().filter(|entry| entry.action == "site.add").count(), 3);
}

#[tokio::test]
async fn a_site_has_its_own_proxies_first_and_they_take_turns() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let add = async |url: &str, own: bool| {
        let site = own.then(|| SITE.parse().unwrap());
        let new = NewProxy { url: url.to_owned(), username: None, password_ref: Some("env:PW".to_owned()), site };
        queue.add_proxy(&new).await.unwrap()
    };
    assert_eq!(queue.take_proxy(SITE).await.unwrap(), None);
    assert_eq!(queue.proxy_rest(SITE).await.unwrap(), None, "none is not the same as all resting");
    let (a, b, all) = (add("http://a:1", true).await, add("http://b:1", true).await, add("http://c:1", false).await);
    assert_eq!(add("http://a:1", true).await, a, "the same one again is the same one");
    let take = async |site: &str| queue.take_proxy(site).await.unwrap().map(|proxy| proxy.id);
    assert_eq!([take(SITE).await, take(SITE).await, take(SITE).await], [Some(a), Some(b), Some(a)]);
    assert_eq!(take("https://other.example").await, Some(all));

    queue.proxy_failed(a, "refused").await.unwrap();
    queue.proxy_failed(b, "refused").await.unwrap();
    assert_eq!(take(SITE).await, Some(all));
    queue.proxy_failed(all, "refused").await.unwrap();
    assert_eq!(take(SITE).await, None);
    let back = queue.proxy_rest(SITE).await.unwrap().unwrap() - queue.now().await.unwrap();
    assert!(back > chrono::TimeDelta::seconds(20) && back <= chrono::TimeDelta::seconds(30), "{back}");
    queue.proxy_failed(b, "refused").await.unwrap();
    queue.proxy_worked(a).await.unwrap();
    assert_eq!(take(SITE).await, Some(a));
    let rests: Vec<u32> = queue.proxies().await.unwrap().iter().map(|proxy| proxy.failures).collect();
    assert_eq!(rests, [0, 2, 1]);
    assert!(queue.remove_proxy(a).await.unwrap());
    assert_eq!(take(SITE).await, None);
}

#[tokio::test]
async fn a_stopped_site_s_tasks_wait_until_it_is_resumed_and_the_audit_has_both() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let origin: Origin = SITE.parse().unwrap();
    queue.add_site(&site(SITE, None, None)).await.unwrap();
    add(&queue, &[task()]).await;
    assert!(queue.stop_site(&origin, "Ann", "they asked us to").await.unwrap());
    assert!(!queue.stop_site(&origin, "Ann", "again").await.unwrap());
    assert!(claim(&queue, 10).await.is_empty());
    assert_eq!(queue.waiting_for_stopped_sites().await.unwrap(), 1);
    assert!(queue.resume_site(&origin, "Ann").await.unwrap());
    assert_eq!(claim(&queue, 10).await.len(), 1);
    assert!(queue.remove_site(&origin, "Bob").await.unwrap());
    let audit = queue.audit(10).await.unwrap();
    let trail: Vec<(&str, &str)> = audit.iter().map(|entry| (entry.who.as_str(), entry.action.as_str())).collect();
    let expected = [("Bob", "site.remove"), ("Ann", "site.resume"), ("Ann", "site.stop"), ("the tests", "site.add")];
    assert_eq!(trail, expected);
}

#[tokio::test]
async fn nothing_is_submitted_once_the_site_is_removed_expired_or_stopped() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let origin: Origin = SITE.parse().unwrap();
    for refusal in [SiteRefusal::Removed, SiteRefusal::Expired, SiteRefusal::Stopped] {
        queue.add_site(&site(SITE, None, None)).await.unwrap();
        add(&queue, &[task()]).await;
        let claimed = claim(&queue, 1).await;
        let lease = Lease { task_id: claimed[0].task.id, fence: claimed[0].fence };
        match refusal {
            SiteRefusal::Removed => {
                assert!(queue.remove_site(&origin, "Ann").await.unwrap());
            }
            SiteRefusal::Expired => {
                let ended =
                    NewEnrolment { authorized_until: Some(queue.now().await.unwrap()), ..site(SITE, None, None) };
                queue.add_site(&ended).await.unwrap();
            }
            SiteRefusal::Stopped => {
                assert!(queue.stop_site(&origin, "Ann", "they asked us to").await.unwrap());
            }
        }
        let refused = queue.commit_intent(lease, &serde_json::json!({}), Duration::from_secs(30)).await;
        assert!(matches!(refused, Err(QueueError::SiteRefused(why)) if why == refusal), "{refused:?}");
        let let_go = queue.mark_let_go(lease).await;
        assert!(matches!(let_go, Err(QueueError::LeaseLost(_))), "{let_go:?}");
    }
}

#[tokio::test]
async fn a_run_of_blocked_attempts_stops_a_site_and_those_before_a_resume_do_not_count() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let origin: Origin = SITE.parse().unwrap();
    queue.add_site(&site(SITE, None, None)).await.unwrap();
    let attempts = async |reason: FailureReason, n: usize| {
        for _ in 0..n {
            add(&queue, &[task()]).await;
            let claimed = claim(&queue, 1).await;
            let lease = Lease { task_id: claimed[0].task.id, fence: claimed[0].fence };
            settle(&queue, lease, Outcome::Dead { failure: Failure::terminal(reason, "test", "test") }).await;
        }
    };
    attempts(FailureReason::Blocked, 2).await;
    assert!(!queue.stop_if_blocked(&origin, "w", 3).await.unwrap(), "two are no run of three");
    attempts(FailureReason::Timeout, 1).await;
    attempts(FailureReason::Blocked, 2).await;
    assert!(!queue.stop_if_blocked(&origin, "w", 3).await.unwrap(), "the run was broken");
    attempts(FailureReason::Blocked, 1).await;
    assert!(queue.stop_if_blocked(&origin, "w", 3).await.unwrap());
    assert!(queue.resume_site(&origin, "Ann").await.unwrap());
    attempts(FailureReason::Blocked, 2).await;
    assert!(!queue.stop_if_blocked(&origin, "w", 3).await.unwrap(), "it was resumed in between");
    add(&queue, &[task()]).await;
    settle(&queue, claim_one(&queue).await.lease(), completed()).await;
    attempts(FailureReason::Blocked, 1).await;
    assert!(!queue.stop_if_blocked(&origin, "w", 3).await.unwrap(), "a success among the latest breaks the run");
}
