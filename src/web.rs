//! The HTTP API and the dashboard: what is on record of every run, and retry, cancel and enqueue.
//!
//! One table ([`router`]) lists every route with what it takes to use it; a route that is not in it can't be reached. The
//! same URL answers JSON or, to a browser, a page. A request passes, from the outside in: its id and log line
//! ([`request_id`]), the headers that every answer has ([`headers`]), the Host check, who it is, what that role may do, and
//! whether a change comes from a page of ours ([`auth`]); then its handler. Handlers answer a [`problem::Problem`] when they
//! can't do what was asked, which names the field and how to mend it.
//!
//! How it can go wrong, and what is done about it:
//! - A captured page is hostile. Run directories are served file by file, by an allow-list of names, without following
//!   links, with headers under which nothing runs and nothing is fetched ([`artifacts`]).
//! - Another site in the operator's browser sends requests here. Cookies are not sent along; changes must come from a page
//!   of ours or carry a token; a Host header that is not ours is refused, so that no name can be rebound to us.
//! - Somebody holds connections open. There is a bound on connections, on the time that headers take, on bodies, on the
//!   time of a request, on listeners of `/events`.
//! - Postgres is away. Pages say so with status 503; `/healthz` goes on answering, `/readyz` does not.
//!
//! It never touches the browser, and reads run directories only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Role, SecretRefError};
use crate::queue::Queue;

mod artifacts;
mod assets;
mod auth;
mod bulk;
mod events;
mod export;
mod headers;
mod hosts;
mod input;
mod login;
mod metrics;
mod negotiate;
mod openapi;
mod pages;
mod problem;
mod request_id;
mod router;
mod runs_api;
mod server;
mod session;
mod summary_api;
mod thumbnail;
mod wire;

pub use export::csv;

/// How long Postgres may work on one statement for a request. Longer than `queue::RETRY_FOR`: what took too long is not
/// asked again.
const STATEMENT_LIMIT: std::time::Duration = std::time::Duration::from_secs(8);

/// How the web server is run.
#[derive(Debug)]
pub struct WebSettings {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Further names that a Host header may have.
    pub hosts: Vec<String>,
    /// Who may use it. Empty: everybody who can reach it, which must then be this machine only.
    pub tokens: Vec<AccessToken>,
    /// For tasks that do not say how often they may be repeated.
    pub default_max_retries: u32,
}

/// One who may use the API.
#[derive(Debug)]
pub struct AccessToken {
    /// Name in the audit trail.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// What is shown for it.
    pub secret: SecretString,
}

/// Why the web server can't start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Everybody in the network could use it.
    #[error(
        "refusing to listen on {0}, which others can reach, without tokens; set web.tokens, or listen on 127.0.0.1 (and \
         reach it through a tunnel)"
    )]
    OpenToOthers(SocketAddr),
    /// A token's reference leads nowhere.
    #[error("web.tokens: the token `{name}` {source}")]
    Token {
        /// Its name.
        name: String,
        /// Why.
        source: SecretRefError,
    },
    /// A token that can't tell who shows it.
    #[error("web.tokens: the token `{name}` {problem}")]
    UnusableToken {
        /// Its name.
        name: String,
        /// What is wrong with it, and how to mend it.
        problem: &'static str,
    },
    /// The address can't be had.
    #[error("can't listen on {address}: {source}; choose another with --listen or web.listen")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

impl WebSettings {
    /// As the configuration says; `listen` is the command line's.
    ///
    /// # Errors
    /// A token can't be had.
    pub fn from_config(config: &Config, listen: Option<SocketAddr>) -> Result<WebSettings, WebError> {
        let tokens = config.web.tokens.iter().map(|token| match token.token.resolve() {
            Ok(secret) => Ok(AccessToken { name: token.name.clone(), role: token.role, secret }),
            Err(source) => Err(WebError::Token { name: token.name.clone(), source }),
        });
        Ok(WebSettings {
            listen: listen.unwrap_or(config.web.listen),
            hosts: config.web.hosts.clone(),
            tokens: tokens.collect::<Result<_, _>>()?,
            default_max_retries: config.retry.max_retries,
        })
    }

    /// Whether a server can be run with these: also before there is a database to serve from.
    ///
    /// # Errors
    /// Others could use it without a token, or a token that is no use.
    pub fn check(&self) -> Result<(), WebError> {
        if self.tokens.is_empty() && !self.listen.ip().is_loopback() {
            return Err(WebError::OpenToOthers(self.listen));
        }
        for (n, token) in self.tokens.iter().enumerate() {
            let secret = token.secret.expose_secret();
            let unusable = |problem| Err(WebError::UnusableToken { name: token.name.clone(), problem });
            if token.name.trim().is_empty() {
                return unusable("has no name; the audit trail needs one");
            }
            if secret.is_empty() || secret.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return unusable("is empty or has blanks in it; write 20 or more letters and digits");
            }
            if self.tokens[..n].iter().any(|other| other.secret.expose_secret() == secret) {
                return unusable("is the same as another's; each needs its own");
            }
            if secret.len() < 16 {
                tracing::warn!(token = token.name, "a token of less than 16 characters can be guessed");
            }
        }
        Ok(())
    }
}

/// What all requests share.
struct App {
    queue: Queue,
    runs_dir: PathBuf,
    default_max_retries: u32,
    hosts: hosts::Hosts,
    auth: auth::Auth,
    metrics: metrics::Metrics,
    events: events::Events,
}

type Shared = Arc<App>;

/// A web server that listens and does not serve yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Shared,
}

impl Server {
    /// Checks the settings and begins to listen.
    ///
    /// # Errors
    /// Any [`WebError`].
    pub async fn bind(settings: WebSettings, queue: Queue, runs_dir: PathBuf) -> Result<Server, WebError> {
        settings.check()?;
        let failed = |source| WebError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = Arc::new(App {
            queue: queue.with_statement_limit(STATEMENT_LIMIT),
            runs_dir,
            default_max_retries: settings.default_max_retries,
            hosts: hosts::Hosts::new(address, &settings.hosts),
            auth: auth::Auth::new(&settings.tokens),
            metrics: metrics::Metrics::new(),
            events: events::Events::new(),
        });
        Ok(Server { listener, address, app })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `/metrics` serves, for whoever sends it elsewhere.
    pub fn metrics(&self) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync + use<> {
        let app = self.app.clone();
        move || {
            let app = app.clone();
            Box::pin(async move { metrics::text(&app).await.unwrap_or_default() })
        }
    }

    /// Serves until `shutdown`, then lets the requests under way end, for ten seconds at most.
    pub async fn run(self, shutdown: CancellationToken) {
        let watching = tokio::spawn(events::watch(self.app.clone(), shutdown.clone()));
        tokio::spawn(summary_api::roll_up_for_ever(self.app.clone(), shutdown.clone()));
        let open = self.app.auth.is_open();
        tracing::info!(event = "web.listening", address = %self.address, open, "listening on http://{}", self.address);
        server::serve(self.listener, router::router(self.app), shutdown).await;
        watching.abort();
    }
}

/// Every route as `(method, path)`, for tests that go through all of them.
pub fn routes() -> Vec<(String, &'static str)> {
    router::table().into_iter().map(|route| (route.method.to_string(), route.path)).collect()
}
