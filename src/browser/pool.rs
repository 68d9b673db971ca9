//! The browsers of a worker: one in use, a spare when the one in use grows old, older ones that drain.
//!
//! A browser is replaced after so many tasks or when it has grown too large; tabs on it end in peace, then it is killed.
//! One that crashed is replaced by the next `open`. Launches that fail in a row are counted, and after five of them the
//! pool refuses for a while instead of trying again: the worker stops claiming tasks meanwhile.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::chrome::Browser;
use super::egress::EgressPolicy;
use super::error::BrowserError;
use super::install;
use super::process;
use super::profile::OwnerDir;
use super::router::lock;
use super::tab::Tab;
use super::types::{BrowserSettings, BrowserVersion, PoolStats, SandboxReport, TabOptions};

/// After so many failed launches in a row the next ones are refused for [`REST`].
const MOST_FAILED_LAUNCHES: u32 = 5;
const REST: Duration = Duration::from_secs(10);
/// Memory is looked at once in so many tasks.
const MEMORY_EVERY: u32 = 8;
/// Old browsers may keep their last tabs for so long.
const DRAIN_LIMIT: Duration = Duration::from_secs(900);

/// The browsers of a worker. Clones share them. [`BrowserPool::shutdown`] waits until nothing of them is left; dropping
/// the last clone kills them as well.
#[derive(Debug, Clone)]
pub struct BrowserPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: BrowserSettings,
    /// Held while a browser is being started, so that many who need one start one.
    launching: AsyncMutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    owner: Option<Arc<OwnerDir>>,
    current: Option<Arc<Browser>>,
    spare: Option<Arc<Browser>>,
    draining: Vec<Arc<Browser>>,
    spare_under_way: bool,
    closed: bool,
    launches: u64,
    crashes: u64,
    failed_in_a_row: u32,
    last_failure: Option<(Instant, BrowserError)>,
}

impl BrowserPool {
    /// A pool that starts nothing yet.
    pub fn new(settings: BrowserSettings) -> BrowserPool {
        BrowserPool { shared: Arc::new(Shared { settings, launching: AsyncMutex::new(()), state: Mutex::default() }) }
    }

    /// A new browsing context with one page, set up. Starts a browser where none runs.
    ///
    /// # Errors
    /// [`BrowserError::NotInstalled`], [`BrowserError::LaunchFailed`], [`BrowserError::SandboxUnavailable`],
    /// [`BrowserError::ConnectFailed`], [`BrowserError::ShuttingDown`], [`BrowserError::Proxy`].
    pub async fn open(&self, options: TabOptions) -> Result<Tab, BrowserError> {
        for again in [true, false] {
            let browser = self.browser().await?;
            let opened = Tab::open(&browser, options.clone(), self.shared.settings.viewport).await;
            match opened {
                // It crashed since we last looked at it, or stands still: another one.
                Err(BrowserError::BrowserGone { .. }) if again => {}
                Err(BrowserError::Unresponsive { .. }) if again && Instant::now() < options.deadline => {
                    browser.retire();
                }
                opened => {
                    let tasks = browser.tasks.fetch_add(1, Ordering::Relaxed) + 1;
                    self.look_at_age(&browser, tasks);
                    return opened;
                }
            }
        }
        Err(BrowserError::BrowserGone { why: "two browsers in a row".to_owned(), stderr: String::new() })
    }

    /// Starts a browser if none runs, and says which it is.
    ///
    /// # Errors
    /// As [`BrowserPool::open`].
    pub async fn warm_up(&self) -> Result<BrowserVersion, BrowserError> {
        Ok(self.browser().await?.version().clone())
    }

    /// How long ago the program that is started was built; None for a remote browser.
    ///
    /// # Errors
    /// [`BrowserError::NotInstalled`].
    pub fn program_age(&self) -> Result<Option<Duration>, BrowserError> {
        let settings = &self.shared.settings;
        if settings.endpoint.is_some() {
            return Ok(None);
        }
        let program = install::find(settings.executable.as_deref())?;
        // Packages keep the time of the build, and what is built here was built then.
        let built = std::fs::metadata(&program.path).and_then(|meta| meta.modified());
        Ok(built.ok().and_then(|built| built.elapsed().ok()))
    }

    /// Looks at a renderer process of ours.
    ///
    /// # Errors
    /// As [`BrowserPool::open`]; [`BrowserError::SandboxUnavailable`] when there is no renderer to be seen.
    pub async fn check_sandbox(&self) -> Result<SandboxReport, BrowserError> {
        let browser = self.browser().await?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let options = TabOptions { user_agent: None, proxy: None, policy: EgressPolicy::default(), deadline };
        let tab = Tab::open(&browser, options, self.shared.settings.viewport).await?;
        let report = browser.processes().into_iter().find_map(process::sandbox_of);
        tab.close().await;
        report.ok_or_else(|| BrowserError::SandboxUnavailable { stderr: "no renderer process was found".to_owned() })
    }

    /// Ends all browsers, waits until their processes are gone and removes their profiles. Safe to call twice.
    pub async fn shutdown(&self) {
        lock(&self.shared.state).closed = true;
        // Whoever is starting one sees that it is closed and ends it again.
        let _launching = self.shared.launching.lock().await;
        let (browsers, owner) = {
            let mut state = lock(&self.shared.state);
            let mut all: Vec<Arc<Browser>> = std::mem::take(&mut state.draining);
            all.extend(state.current.take());
            all.extend(state.spare.take());
            (all, state.owner.take())
        };
        let ends = browsers.iter().map(|browser| browser.end(&BrowserError::ShuttingDown));
        futures::future::join_all(ends).await;
        drop(browsers);
        let _ = tokio::task::spawn_blocking(move || drop(owner)).await;
    }

    /// The pool now.
    pub fn stats(&self) -> PoolStats {
        let (mut stats, browsers) = {
            let state = lock(&self.shared.state);
            let browsers: Vec<_> = state.current.iter().chain(&state.spare).chain(&state.draining).cloned().collect();
            let stats = PoolStats {
                launches: state.launches,
                crashes: state.crashes,
                failed_launches_in_a_row: state.failed_in_a_row,
                ..PoolStats::default()
            };
            (stats, browsers)
        };
        for browser in browsers {
            if browser.router.closed().is_none() {
                stats.open_tabs += browser.open_tabs.load(Ordering::Relaxed);
            }
            stats.pids.extend(browser.pid());
            stats.rss_bytes += browser.rss_bytes();
        }
        stats
    }

    /// The browser for the next tab.
    async fn browser(&self) -> Result<Arc<Browser>, BrowserError> {
        if let Some(browser) = self.usable()? {
            return Ok(browser);
        }
        let _launching = self.shared.launching.lock().await;
        if let Some(browser) = self.usable()? {
            return Ok(browser);
        }
        {
            let state = lock(&self.shared.state);
            if let Some((when, error)) = &state.last_failure
                && state.failed_in_a_row >= MOST_FAILED_LAUNCHES
                && when.elapsed() < REST
            {
                return Err(error.clone());
            }
        }
        let browser = self.launch().await?;
        let closed = {
            let mut state = lock(&self.shared.state);
            if !state.closed {
                state.current = Some(browser.clone());
            }
            state.closed
        };
        if closed {
            browser.end(&BrowserError::ShuttingDown).await;
            return Err(BrowserError::ShuttingDown);
        }
        Ok(browser)
    }

    /// The current browser if it can take a tab; else the spare takes its place.
    fn usable(&self) -> Result<Option<Arc<Browser>>, BrowserError> {
        let mut state = lock(&self.shared.state);
        if state.closed {
            return Err(BrowserError::ShuttingDown);
        }
        for _ in 0..2 {
            if let Some(browser) = state.current.clone() {
                let gone = browser.router.closed().is_some();
                if !gone && !browser.retired.load(Ordering::Relaxed) {
                    return Ok(Some(browser));
                }
                state.current = None;
                state.draining.push(browser.clone());
                tokio::spawn(drain(Arc::downgrade(&self.shared), browser));
            }
            state.current = state.spare.take();
        }
        Ok(None)
    }

    async fn launch(&self) -> Result<Arc<Browser>, BrowserError> {
        let settings = self.shared.settings.clone();
        let launched = match &settings.endpoint {
            Some(endpoint) => Browser::connect(endpoint.as_str()).await,
            None => match self.owner().await {
                Ok(owner) => Browser::launch(&settings, &owner).await,
                Err(error) => Err(error),
            },
        };
        let mut state = lock(&self.shared.state);
        match &launched {
            Ok(_) => {
                state.launches += 1;
                state.failed_in_a_row = 0;
            }
            Err(error) => {
                state.failed_in_a_row += 1;
                state.last_failure = Some((Instant::now(), error.clone()));
            }
        }
        launched
    }

    async fn owner(&self) -> Result<Arc<OwnerDir>, BrowserError> {
        if let Some(owner) = &lock(&self.shared.state).owner {
            return Ok(owner.clone());
        }
        let dir = self.shared.settings.state_dir.clone();
        let taken = tokio::task::spawn_blocking(move || OwnerDir::take(&dir, install::unprivileged_user())).await;
        let failed = |why: String| BrowserError::LaunchFailed {
            message: format!(
                "{} can't be used: {why}; set data.dir to a directory that this user can write",
                self.shared.settings.state_dir.display()
            ),
            stderr: String::new(),
        };
        let taken = taken.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let owner = Arc::new(taken);
        Ok(lock(&self.shared.state).owner.get_or_insert(owner).clone())
    }

    /// Has a spare started when `browser` comes of age, and retires it when it is.
    fn look_at_age(&self, browser: &Arc<Browser>, tasks: u32) {
        let most = self.shared.settings.recycle_after_tasks.max(1);
        let large =
            tasks.is_multiple_of(MEMORY_EVERY) && browser.rss_bytes() > self.shared.settings.recycle_above_bytes;
        if tasks >= most || large {
            browser.retire();
        }
        if tasks.saturating_mul(10) < most.saturating_mul(9) && !large {
            return;
        }
        {
            let mut state = lock(&self.shared.state);
            if state.closed || state.spare_under_way || state.spare.is_some() {
                return;
            }
            state.spare_under_way = true;
        }
        let pool = self.clone();
        tokio::spawn(async move {
            let _launching = pool.shared.launching.lock().await;
            let launched = pool.launch().await;
            let unwanted = {
                let mut state = lock(&pool.shared.state);
                state.spare_under_way = false;
                match launched {
                    Ok(browser) if !state.closed && state.spare.is_none() => {
                        state.spare = Some(browser);
                        None
                    }
                    Ok(browser) => Some(browser),
                    // Counted; the next `open` tries again.
                    Err(_) => None,
                }
            };
            if let Some(browser) = unwanted {
                browser.end(&BrowserError::ShuttingDown).await;
            }
        });
    }
}

/// Waits until the last tab of a retired browser is closed, or it has crashed, and ends it.
async fn drain(shared: std::sync::Weak<Shared>, browser: Arc<Browser>) {
    let deadline = Instant::now() + DRAIN_LIMIT;
    loop {
        let changed = browser.changed.notified();
        if browser.router.closed().is_some() || browser.open_tabs.load(Ordering::Relaxed) == 0 {
            break;
        }
        if tokio::time::timeout_at(deadline, changed).await.is_err() {
            break;
        }
    }
    if let Some(shared) = shared.upgrade() {
        let mut state = lock(&shared.state);
        if !state.closed && browser.router.closed().is_some() {
            state.crashes += 1;
        }
    }
    browser.end(&BrowserError::TargetGone { why: "its browser was replaced".to_owned() }).await;
    if let Some(shared) = shared.upgrade() {
        lock(&shared.state).draining.retain(|one| !Arc::ptr_eq(one, &browser));
    }
}
