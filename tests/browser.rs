//! Chrome as a process: sandboxed, shared between tabs that share nothing, replaced when it crashes, hangs or is old.

// A helper that fails fails the test that called it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/chrome.rs"]
mod chrome;

use std::time::Duration;

use chrome::*;
use pagehand::browser::*;
use serde_json::json;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_renderer_crash_fails_the_call_under_way_and_all_that_follow() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<p>x</p>").await;
    let frame = tab.main_frame();
    let pool = fixture.pool.clone();
    let crash = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill_renderers(&pool);
        Instant::now()
    };
    let waiting = tab.call::<()>(&frame, "() => new Promise(() => {})", &[], Duration::from_secs(30));
    let (failed, crashed) = tokio::join!(within(10, waiting), crash);
    assert!(matches!(failed, Err(BrowserError::RendererCrashed)), "{failed:?}");
    assert!(crashed.elapsed() < Duration::from_secs(2));
    let started = Instant::now();
    let later = tab.call::<()>(&frame, "() => null", &[], SOON).await;
    assert!(matches!(later, Err(BrowserError::RendererCrashed)), "{later:?}");
    assert!(matches!(tab.screenshot(SOON).await, Err(BrowserError::RendererCrashed)));
    assert!(matches!(tab.dom(SOON).await, Err(BrowserError::RendererCrashed)));
    assert!(started.elapsed() < Duration::from_millis(500));
    // Others are not concerned.
    let other = fixture.showing("<p>y</p>").await;
    assert!(other.dom(SOON).await.is_ok());
    fixture.pool.shutdown().await;
}

fn kill_renderers(pool: &BrowserPool) {
    for pid in pool.stats().pids {
        group_of(pid).iter().filter(|(_, line)| line.contains("--type=renderer")).for_each(|(pid, _)| kill(*pid));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_browser_fails_what_waits_at_once_and_the_next_tab_gets_a_new_one() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<p>x</p>").await;
    let frame = tab.main_frame();
    let pids = fixture.pool.stats().pids;
    let end = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(pids[0]);
        Instant::now()
    };
    let waiting = tab.call::<()>(&frame, "() => new Promise(() => {})", &[], Duration::from_secs(30));
    let (failed, killed) = tokio::join!(within(10, waiting), end);
    let told = killed.elapsed();
    match &failed {
        Err(BrowserError::BrowserGone { why, .. }) => assert_eq!(why, "it was killed by signal 9"),
        other => panic!("{other:?}"),
    }
    assert!(told < Duration::from_secs(1), "{told:?}");
    drop(tab);
    let again = fixture.showing("<p>again</p>").await;
    assert!(again.dom(SOON).await.unwrap().html.contains("again"));
    let stats = fixture.pool.stats();
    assert_eq!((stats.launches, stats.crashes), (2, 1));
    again.close().await;
    fixture.pool.shutdown().await;
    assert_eq!(group_of(pids[0]), [], "nothing of it is left, not even as a zombie");
    assert_eq!(std::fs::read_dir(fixture.state_dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn renderers_are_sandboxed_and_the_profile_is_not_ours() {
    let fixture = Fixture::new().await;
    let report = fixture.pool.check_sandbox().await.unwrap();
    assert!(report.is_sandboxed(), "{report:?}");
    assert_ne!(report.uid, 0);
    let pid = fixture.pool.stats().pids[0];
    let line = group_of(pid).into_iter().find(|(one, _)| *one == pid).unwrap().1;
    assert!(!line.contains("--no-sandbox"), "{line}");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).replace('\0', " ");
    assert!(!environment.contains("CARGO"), "{environment}");
    assert!(fixture.pool.stats().rss_bytes > 10_000_000);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chrome_listens_on_no_port() {
    let fixture = Fixture::new().await;
    fixture.pool.warm_up().await.unwrap();
    let pid = fixture.pool.stats().pids[0];
    let mut inodes = Vec::new();
    for (member, _) in group_of(pid) {
        for entry in std::fs::read_dir(format!("/proc/{member}/fd")).into_iter().flatten().flatten() {
            if let Ok(to) = std::fs::read_link(entry.path())
                && let Some(inode) = to.to_string_lossy().strip_prefix("socket:[")
            {
                inodes.push(inode.trim_end_matches(']').to_owned());
            }
        }
    }
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            assert!(!(fields[3] == "0A" && inodes.iter().any(|inode| inode == fields[9])), "{line}");
        }
    }
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_share_nothing() {
    let fixture = Fixture::new().await;
    let url = fixture.nasty.page("jar", "<p>jar</p>");
    let (a, b) = (fixture.tab().await, fixture.tab().await);
    a.goto(&url, SOON).await.unwrap();
    let kept = fixture.nasty.url("/echo/kept");
    // A password for the site, a file in the cache, and all that a script may keep.
    let put = "async (_, kept) => {
        const locked = new XMLHttpRequest(); locked.open('GET', '/locked', false, 'ann', 'pw'); locked.send();
        await fetch(kept, { cache: 'force-cache' });
        document.cookie = 'c=1'; localStorage.l = 1; sessionStorage.s = 1; window.name = 'n';
        await caches.open('d'); await navigator.serviceWorker.register('/worker.js');
        await new Promise(done => { indexedDB.open('i').onsuccess = done });
        new BroadcastChannel('b').onmessage = () => { document.title = 'heard' };
        return locked.status }";
    let args = [serde_json::json!(kept)];
    assert_eq!(a.call::<u16>(&a.main_frame(), put, &args, SOON).await.unwrap(), 200);
    b.goto(&url, SOON).await.unwrap();
    let look = "async (_, kept) => {
        const locked = new XMLHttpRequest(); locked.open('GET', '/locked', false); locked.send();
        await fetch(kept, { cache: 'force-cache' });
        new BroadcastChannel('b').postMessage(1);
        return [locked.status, document.cookie, localStorage.l || '', await caches.has('d'),
            (await navigator.serviceWorker.getRegistrations()).length, (await indexedDB.databases()).length].join() }";
    assert_eq!(b.call::<String>(&b.main_frame(), look, &args, SOON).await.unwrap(), "401,,,false,0,0");
    assert_eq!(fixture.nasty.seen("/echo/kept").len(), 2, "each has a cache of its own");
    assert_eq!(a.title_and_url().await.unwrap().0, "", "nothing was heard");
    a.goto(&url, SOON).await.unwrap();
    assert_eq!(a.call::<String>(&a.main_frame(), look, &args, SOON).await.unwrap(), "200,c=1,1,true,1,1");
    assert_eq!(fixture.nasty.seen("/echo/kept").len(), 2, "and uses it");
    let cookies: Vec<String> = fixture.nasty.seen("/page/jar").into_iter().map(|seen| seen.cookie).collect();
    assert_eq!(cookies, ["", "", "c=1"]);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_agent_is_the_one_asked_for() {
    let fixture = Fixture::new().await;
    let tab =
        fixture.pool.open(TabOptions { user_agent: Some("pagehand/9".to_owned()), ..fixture.options() }).await.unwrap();
    tab.goto(&fixture.nasty.page("ua", "<p>ua</p>"), SOON).await.unwrap();
    assert_eq!(fixture.nasty.seen("/page/ua")[0].user_agent, "pagehand/9");
    let seen: String = tab.call(&tab.main_frame(), "() => navigator.userAgent", &[], SOON).await.unwrap();
    assert_eq!(seen, "pagehand/9");
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_browser_drains_and_its_spare_takes_over() {
    let fixture = Fixture::with(|settings| BrowserSettings { recycle_after_tasks: 2, ..settings }).await;
    let first = fixture.tab().await;
    let old = fixture.pool.stats().pids[0];
    drop(fixture.tab().await);
    let third = fixture.tab().await;
    assert!(first.goto(&fixture.nasty.page("p", "<p>p</p>"), SOON).await.is_ok(), "tabs of the old one go on");
    drop(first);
    within(10, async {
        while fixture.pool.stats().pids.contains(&old) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(group_of(old), []);
    assert!(third.goto(&fixture.nasty.url("/page/p"), SOON).await.is_ok());
    let stats = fixture.pool.stats();
    assert_eq!((stats.crashes, stats.open_tabs), (0, 1));
    fixture.pool.shutdown().await;
    fixture.pool.shutdown().await;
    assert_eq!(std::fs::read_dir(fixture.state_dir.path()).unwrap().count(), 0);
    let refused = fixture.pool.open(fixture.options()).await;
    assert!(matches!(refused, Err(BrowserError::ShuttingDown)), "{refused:?}");
}

/// A process that does nothing, with `argument` on its command line.
fn waiting_with(argument: &str) -> tokio::process::Child {
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", "read _", argument]).stdin(std::process::Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_owner_left_is_removed_with_its_browser() {
    let fixture = Fixture::new().await;
    let dead = fixture.state_dir.path().join("chrome/1-dead");
    std::fs::create_dir_all(dead.join("b1/profile")).unwrap();
    std::fs::write(dead.join("owner"), "").unwrap();
    let profile = format!("--user-data-dir={}/b1/profile", dead.canonicalize().unwrap().display());
    let mut left = waiting_with(&profile);
    let mut stranger = waiting_with("--user-data-dir=/home/somebody/b1/profile");
    fixture.pool.warm_up().await.unwrap();
    assert!(!dead.exists());
    assert!(!within(5, left.wait()).await.unwrap().success());
    assert!(stranger.try_wait().unwrap().is_none(), "somebody else's process was killed");
    // One that is in use stays.
    let other = BrowserPool::new(BrowserSettings {
        state_dir: fixture.state_dir.path().to_owned(),
        ..BrowserSettings::default()
    });
    other.warm_up().await.unwrap();
    assert!(fixture.tab().await.goto(&fixture.nasty.page("p", "<p>p</p>"), SOON).await.is_ok());
    other.shutdown().await;
    fixture.pool.shutdown().await;
    stranger.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_does_not_start_says_why_and_the_pool_rests_after_five() {
    let fixture = Fixture::with(|settings| BrowserSettings { executable: Some("/bin/false".into()), ..settings }).await;
    for _ in 0..7 {
        let failed = fixture.pool.open(fixture.options()).await;
        assert!(matches!(failed, Err(BrowserError::LaunchFailed { .. })), "{failed:?}");
    }
    assert_eq!(fixture.pool.stats().failed_launches_in_a_row, 5);
    let fixture = Fixture::with(|settings| BrowserSettings { executable: Some("/no/such".into()), ..settings }).await;
    let failed = fixture.pool.warm_up().await;
    assert!(matches!(failed, Err(BrowserError::NotInstalled { .. })), "{failed:?}");
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_is_told_apart_from_a_script_and_goes_with_its_browser() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<p>x</p>").await;
    let old = fixture.pool.stats().pids[0];
    for (pid, line) in group_of(old) {
        if line.contains("--type=renderer") {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        }
    }
    let frame = tab.main_frame();
    let failed = within(8, tab.call::<u8>(&frame, "() => 1", &[], Duration::from_millis(500))).await;
    assert!(matches!(failed, Err(BrowserError::Unresponsive { .. })), "{failed:?}");
    let started = Instant::now();
    assert!(tab.screenshot(Duration::from_secs(2)).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(3));
    let other = fixture.showing("<p>y</p>").await;
    assert!(other.dom(SOON).await.is_ok());
    within(10, tab.close()).await;
    within(10, async {
        while !group_of(old).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_somebody_else_runs_is_used_over_its_websocket() {
    let home = tempfile::tempdir().unwrap();
    let program = "/usr/lib/chromium/chromium-headless-shell";
    if !std::path::Path::new(program).exists() {
        return;
    }
    let mut command = tokio::process::Command::new(program);
    command
        .args(["--remote-debugging-port=0", "--no-first-run"])
        .arg(format!("--user-data-dir={}/p", home.path().display()));
    command.env("HOME", home.path()).stderr(std::process::Stdio::piped()).kill_on_drop(true).process_group(0);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
        command.uid(65534).gid(65534);
    }
    let mut remote = command.spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(remote.stderr.take().unwrap()));
    let endpoint = within(20, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it says where it listens");
            if let Some(endpoint) = line.strip_prefix("DevTools listening on ") {
                return url::Url::parse(endpoint).unwrap();
            }
        }
    })
    .await;
    let fixture = Fixture::with(|settings| BrowserSettings { endpoint: Some(endpoint), ..settings }).await;
    let tab = fixture.showing("<title>\u{e4}</title><form method=post action=/post><input name=a><button>b</button></form><script>document.title += '\\ud800'</script>").await;
    let field = find(&tab, "input").await;
    tab.fill(&field, "from afar 😀", SOON).await.unwrap();
    assert_eq!(tab.title_and_url().await.unwrap().0, "ä\u{fffd}");
    assert!(tab.screenshot(SOON).await.is_ok());
    let button = find(&tab, "button").await;
    let report = within(10, tab.submit(&button, &Gate::admitting("/post"), SOON)).await.unwrap();
    assert_eq!(report.landed.unwrap().status, Some(200));
    let frame = tab.main_frame();
    let end = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        remote.start_kill().unwrap();
    };
    let waiting = tab.call::<()>(&frame, "() => new Promise(() => {})", &[], Duration::from_secs(30));
    let (failed, ()) = tokio::join!(within(10, waiting), end);
    assert!(matches!(failed, Err(BrowserError::BrowserGone { .. })), "{failed:?}");
    let refused = fixture.pool.open(fixture.options()).await;
    assert!(matches!(refused, Err(BrowserError::ConnectFailed { .. })), "{refused:?}");
    fixture.pool.shutdown().await;
    let _ = remote.wait().await;
}

#[test]
fn everything_can_be_used_from_any_thread() {
    fn sent<T: Send>(_: T) {}
    let pool = BrowserPool::new(BrowserSettings::default());
    let policy = EgressPolicy::default();
    sent(pool.open(TabOptions { user_agent: None, proxy: None, policy, deadline: Instant::now() }));
    sent(pool.shutdown());
    sent(pool.warm_up());
    fn all(tab: &Tab, element: &ElementRef, gate: &dyn SubmitGate) {
        sent(tab.goto("", SOON));
        sent(tab.call::<()>(&element.frame, "", &[], SOON));
        sent(tab.submit(element, gate, SOON));
        sent(tab.screenshot(SOON));
        sent(tab.dom(SOON));
        sent(tab.frames());
    }
    let _ = all;
}

#[tokio::test(flavor = "multi_thread")]
async fn chrome_is_not_disguised() {
    let fixture = Fixture::new().await;
    let page = "<!doctype html><title>x</title><script>
        const native = (object, name) => {
            const found = Object.getOwnPropertyDescriptor(object, name);
            return Boolean(found && found.get && Function.prototype.toString.call(found.get).includes('[native code]'));
        };
        document.title = JSON.stringify({
            own: Object.getOwnPropertyNames(navigator),
            native: ['webdriver', 'userAgent', 'plugins', 'languages', 'platform', 'hardwareConcurrency']
                .map(name => native(Navigator.prototype, name)),
            ours: Object.keys(window).filter(name => /pagehand|cdc_|playwright|puppeteer/i.test(name)),
            agent: navigator.userAgent,
        });
    </script>";
    let user_agent = Some("pagehand/9 (+https://example.org/who)".to_owned());
    let tab = fixture.pool.open(TabOptions { user_agent, ..fixture.options() }).await.unwrap();
    tab.goto(&fixture.nasty.page("who", page), SOON).await.unwrap();
    let (title, _) = tab.title_and_url().await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&title).unwrap();
    let expected = json!({"own": [], "native": [true, true, true, true, true, true], "ours": [],
                          "agent": "pagehand/9 (+https://example.org/who)"});
    assert_eq!(seen, expected);
    fixture.pool.shutdown().await;
}
