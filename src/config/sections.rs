//! The sections of the configuration, and what holds where nothing is said. `[mailbox]` has a file of its own: profiles of sites
//! have one too.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::SecretRef;

/// Section `[database]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// Address of Postgres. None: `DATABASE_URL`, and without that a private Postgres under `data.dir`.
    pub url: Option<SecretRef>,
    /// Most connections of one process.
    pub max_connections: u32,
}

/// Section `[data]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// The private Postgres and Chrome's profiles live here.
    pub dir: PathBuf,
}

/// Section `[worker]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Tasks at once in one process.
    pub concurrency: u32,
    /// How long a task stays ours without a renewal.
    pub lease_seconds: Seconds,
    /// How long running tasks may go on after SIGTERM.
    pub drain_seconds: Seconds,
    /// The longest an attempt may take.
    pub task_timeout_seconds: Seconds,
    /// How often the queue is looked at when no wake-up comes.
    pub poll_seconds: Seconds,
    /// A site is stopped after so many attempts in a row that were blocked; 0: never.
    pub stop_after_blocked: u32,
    /// The user's address in the User-Agent, so that a site knows whom to ask.
    pub contact: Option<String>,
    /// Loopback address at which this worker's counters are served. None: nowhere.
    pub metrics_listen: Option<SocketAddr>,
}

/// Section `[retry]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How often a failed attempt is repeated, where the task does not say.
    pub max_retries: u32,
    /// Upper bound of the wait before the first retry.
    pub initial_seconds: Seconds,
    /// Upper bound of every wait.
    pub max_seconds: Seconds,
}

/// Section `[browser]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Browser {
    /// Chrome's program. None: chromium-headless-shell, else chromium.
    pub executable: Option<PathBuf>,
    /// `ws://` address of a Chrome that runs elsewhere.
    pub endpoint: Option<Url>,
    /// False runs Chrome without its sandbox.
    pub sandbox: bool,
    /// A Chrome built longer ago than this many days is warned about.
    pub max_age_days: u64,
    /// A new browser after this many tasks.
    pub recycle_after_tasks: u32,
    /// A new browser when the memory of its processes passes this, MiB.
    pub recycle_above_mib: u64,
}

/// Section `[egress]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// What pages may load from hosts that are not enrolled.
    pub third_parties: ThirdParties,
    /// Most that one attempt may send and receive, MiB.
    pub max_mib_per_task: u64,
}

/// What pages may load from hosts that are not enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThirdParties {
    /// Nothing.
    Strict,
    /// What they read from public addresses.
    Assets,
}

/// Section `[llm]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Llm {
    /// Base address of an endpoint that speaks OpenAI's protocol for chats. None: nobody is asked.
    pub url: Option<Url>,
    /// Name of the model.
    pub model: String,
    /// Where its key is.
    pub key: Option<SecretRef>,
    /// The longest an answer may take.
    pub timeout_seconds: Seconds,
    /// Most tokens of an answer.
    pub max_output_tokens: u32,
}

/// Section `[runs]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runs {
    /// Root of the run directories.
    pub dir: PathBuf,
}

/// Section `[secrets]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// Where the key is under which passwords of tasks are encrypted. None: they are stored in the clear.
    pub key: Option<SecretRef>,
    /// Keys that it replaced, as long as something is encrypted under them.
    pub older_keys: Vec<SecretRef>,
}

/// Section `[logs]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// Daily files go here as well as to standard error.
    pub dir: Option<PathBuf>,
    /// Which lines: a level, or directives like `info,pagehand::browser=debug`.
    pub filter: String,
    /// Daily files kept.
    pub keep_days: usize,
}

/// Section `[traces]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// Base address of a collector that takes OTLP over plain HTTP, for example `http://127.0.0.1:4318`. None: nowhere.
    pub endpoint: Option<Url>,
}

/// Section `[metrics]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Base address of a collector that takes OTLP over plain HTTP, for example `http://127.0.0.1:4318`. None: nowhere.
    pub endpoint: Option<Url>,
    /// How often they are sent.
    pub interval_seconds: Seconds,
}

/// Section `[web]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// Address of the API and the dashboard.
    pub listen: SocketAddr,
    /// Names under which browsers reach them, besides loopback's and the address itself.
    pub hosts: Vec<String>,
    /// Who may use them. None at all: open, and bound to loopback only.
    pub tokens: Vec<WebToken>,
}

/// One who may use the API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebToken {
    /// Name in the audit trail.
    pub name: String,
    /// What the token allows.
    pub role: Role,
    /// Where the token is.
    pub token: SecretRef,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Also enqueue, retry and cancel.
    Operate,
}

/// A length of time in seconds, fractions allowed, at most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Seconds(Duration);

impl Seconds {
    pub(crate) const fn of(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same as a duration.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) if seconds <= 315_360_000.0 => Ok(Self(duration)),
            _ => Err(format!("{seconds} is no number of seconds from 0 to 315360000")),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self { url: None, max_connections: 8 }
    }
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: ".pagehand".into() }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            concurrency: 4,
            lease_seconds: Seconds::of(30),
            drain_seconds: Seconds::of(120),
            task_timeout_seconds: Seconds::of(120),
            poll_seconds: Seconds::of(1),
            stop_after_blocked: 20,
            contact: None,
            metrics_listen: None,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_retries: 3, initial_seconds: Seconds::of(10), max_seconds: Seconds::of(3_600) }
    }
}

impl Default for Browser {
    fn default() -> Self {
        Self {
            executable: None,
            endpoint: None,
            sandbox: true,
            max_age_days: 45,
            recycle_after_tasks: 100,
            recycle_above_mib: 1_500,
        }
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self { third_parties: ThirdParties::Assets, max_mib_per_task: 256 }
    }
}

impl Default for Llm {
    fn default() -> Self {
        Self { url: None, model: String::new(), key: None, timeout_seconds: Seconds::of(20), max_output_tokens: 500 }
    }
}

impl Default for Runs {
    fn default() -> Self {
        Self { dir: "runs".into() }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self { dir: None, filter: "info".to_owned(), keep_days: 14 }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { endpoint: None, interval_seconds: Seconds::of(60) }
    }
}

impl Default for Web {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), hosts: Vec::new(), tokens: Vec::new() }
    }
}
