//! Every page of `tests/fixtures/`, on real Chrome: what comes of it, and what the site got.
//!
//! `FIXTURE=part-of-a-name cargo test --test fixtures` runs some of them and says how long each took, `FIXTURES_AT_ONCE` says how many at a time.

// Helpers outside `#[test]` functions fail the test by panicking.
#![allow(clippy::unwrap_used)]

#[path = "support/attempts.rs"]
mod attempts;
#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/forms_site.rs"]
mod forms_site;
#[path = "support/policy.rs"]
mod policy;

use std::path::Path;
use std::time::{Duration, Instant};

use attempts::{Attempt, BODY, Browser, Ended};
use fixtures::{Fixture, is_outcome};
use forms_site::Site;
use futures::StreamExt;
use pagehand::automation::StepLimits;
use pagehand::failure::FailureReason;

/// Pages that are worked on at the same time.
const AT_ONCE: usize = 4;

/// What was not as it should be; shown without a backtrace, which would only hide it.
struct Faults(Vec<String>);

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} faults:\n{}", self.0.len(), self.0.join("\n"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_ends_as_it_says() -> Result<(), Faults> {
    let wanted = std::env::var("FIXTURE").unwrap_or_default();
    let at_once = std::env::var("FIXTURES_AT_ONCE").ok().and_then(|n| n.parse().ok()).unwrap_or(AT_ONCE);
    let all = fixtures::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"));
    let some: Vec<Fixture> = all.into_iter().filter(|fixture| fixture.name.contains(wanted.as_str())).collect();
    assert!(!some.is_empty(), "no fixture has `{wanted}` in its name");
    let browser = Browser::start();
    let started = Instant::now();
    let count = some.len();
    let faults: Vec<String> = futures::stream::iter(some)
        .map(|fixture| {
            let (browser, wanted) = (&browser, &wanted);
            async move {
                let began = Instant::now();
                let faults = check(browser, &fixture).await;
                if !wanted.is_empty() {
                    println!("{:5.1} s  {}  {}", began.elapsed().as_secs_f64(), fixture.name, fixture.expect.join(" "));
                }
                faults
            }
        })
        .buffer_unordered(at_once)
        .concat()
        .await;
    println!("{count} fixtures in {:.1} s", started.elapsed().as_secs_f64());
    browser.close().await;
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

/// Carries the fixture out; what is not as it should be.
async fn check(browser: &Browser, fixture: &Fixture) -> Vec<String> {
    let site = Site::start().await;
    for page in &fixture.pages {
        let name = &page.name;
        site.page(name, &expand(&page.html, name, &site));
        if page.status != 200 || !page.headers.is_empty() {
            site.answer_with(name, page.status, page.headers.clone());
        }
    }
    let change = Attempt { payload: fixture.payload.clone(), limits: Some(limits()), ..Attempt::default() };
    let url = format!("{}/post", site.origin());
    let ended = browser.attempt(&fixture.task, &url, change).await;
    let faults = compare(fixture, &site, &ended);
    let steps = ended.steps.join(" ");
    faults.into_iter().map(|fault| format!("{}: {fault}\n    steps: {steps}", fixture.name)).collect()
}

fn limits() -> StepLimits {
    StepLimits {
        navigation: Duration::from_secs(8),
        least_before_submit_stamped: Duration::from_secs(2),
        submit: Duration::from_secs(10),
        ..StepLimits::default()
    }
}

fn compare(fixture: &Fixture, site: &Site, ended: &Ended) -> Vec<String> {
    let mut faults = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            faults.push(what);
        }
    };
    let (came, words) = match &ended.result {
        Ok(success) => {
            (vec![ended.outcome()], success.details.get("evidence").and_then(|e| e.as_str()).unwrap_or_default())
        }
        Err(failure) => (vec![failure.reason.as_str().to_owned(), failure.code.to_string()], failure.message.as_str()),
    };
    let expected: Vec<&str> = fixture.expect.iter().map(String::as_str).collect();
    let known = is_outcome(expected[0]) || expected[0].parse::<FailureReason>().is_ok();
    assert!(known, "{}: `{}` is neither an outcome nor a reason", fixture.name, expected[0]);
    demand(came.iter().zip(&expected).all(|(a, b)| a == b), format!("expected {expected:?}, came {came:?}: {words}"));
    for part in &fixture.says {
        demand(words.contains(part), format!("`{words}` does not say `{part}`"));
    }
    if let (Some(retryable), Err(failure)) = (fixture.retryable, &ended.result) {
        demand(failure.retryable == retryable, format!("retryable is {}", failure.retryable));
    }
    let submitted = site.submitted();
    let count = submitted.iter().filter(|posted| !posted.path.starts_with("/submit/aside/")).count();
    demand(count == fixture.submissions, format!("{count} submissions, expected {}", fixture.submissions));
    if let Some(last) = submitted.last() {
        for (name, value) in &fixture.sent {
            let value = if value == "@body" { BODY } else { value };
            let got = last.fields.get(name).map(|got| got.replace("\r\n", "\n"));
            demand(got.as_deref() == Some(value), format!("{name} is {got:?}, expected {value:?}"));
        }
        for name in &fixture.unsent {
            let got = last.fields.get(name).map_or("", String::as_str);
            demand(got.is_empty(), format!("{name} is {got:?}, expected nothing"));
        }
    }
    let clicked: Vec<String> = site
        .posted()
        .into_iter()
        .filter_map(|posted| Some(posted.path.strip_prefix("/clicked/")?.to_owned()))
        .collect();
    for name in &fixture.clicked {
        demand(clicked.contains(name), format!("{name} was not clicked, only {clicked:?}"));
    }
    for name in &fixture.unclicked {
        demand(!clicked.contains(name), format!("{name} was clicked"));
    }
    for name in &fixture.steps {
        demand(ended.steps.contains(name), format!("no step {name}"));
    }
    faults
}

/// Fills in what stands in double braces.
fn expand(html: &str, page: &str, site: &Site) -> String {
    const FIELDS: &str = "<p><label for=a>Name *</label> <input id=a name=n required></p>
        <p><label for=b>E-mail *</label> <input id=b name=m required></p><p><label for=c>Website</label> <input id=c name=w></p>
        <p><label for=d>Comment *</label> <textarea id=d name=t required></textarea></p>";
    const ACCOUNT: &str = "<p><label>Username <input name=c required></label></p>
        <p><label>E-mail <input type=email name=d required></label></p>
        <p><label>Password <input type=password name=f required></label></p>";
    let mut out = html.to_owned();
    for (name, text) in [("fields", FIELDS), ("account", ACCOUNT), ("elsewhere", &site.elsewhere(&site.origin()))] {
        out = out.replace(&format!("{{{{{name}}}}}"), text);
    }
    while let Some((before, rest)) = out.split_once("{{form ") {
        let (behaviour, after) = rest.split_once("}}").unwrap();
        let action = if behaviour.contains('/') { behaviour.to_owned() } else { format!("{behaviour}/{page}") };
        out = format!(
            "{before}<h2>Leave a reply</h2><form method=post action=/submit/{action}>{FIELDS}<button>Post comment</button></form>{after}"
        );
    }
    while let Some((before, rest)) = out.split_once("{{signup ") {
        let (behaviour, after) = rest.split_once("}}").unwrap();
        out = format!(
            "{before}<h1>Create an account</h1><form method=post action=/submit/{behaviour}>{ACCOUNT}<button>Sign up</button></form>{after}"
        );
    }
    out
}
