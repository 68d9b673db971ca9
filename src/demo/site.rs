//! The listeners of the demo site and its routes.
//!
//! Two origins, both on loopback with ports the system chose: the site itself on `127.0.0.1`, and on `localhost`
//! another one that serves comment widgets into frames: to a browser that is another *site*, not only another origin.
//! A third address is bound and never listened on, so a connection to it is refused for as long as the site lives.
//!
//! We accept and serve connections ourselves, because some pages end theirs in ways no framework offers.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::ledger::Ledger;
use super::pages::{accounts, article, assets, comments, login, manners};

/// What the handlers share.
#[derive(Debug)]
pub(super) struct Site {
    pub ledger: Ledger,
    /// Origin of the widgets, for example `http://localhost:40123`.
    pub widget_origin: String,
    /// An origin where nobody listens.
    pub refused_origin: String,
    /// How often each article that recovers has failed so far.
    pub outages: Mutex<HashMap<&'static str, u32>>,
    secret: u128,
}

impl Site {
    /// A token that only this site, while it runs, can make for `purpose` and `visitor`. 32 hexadecimal digits.
    pub(super) fn token(&self, purpose: &str, visitor: &str) -> String {
        let digest = Sha256::digest(format!("{:032x}|{purpose}|{visitor}", self.secret));
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The running demo site. Dropping it closes all its connections.
#[derive(Debug)]
pub struct DemoSite {
    site: Arc<Site>,
    origin: String,
    /// Bound and not listening: whoever connects is refused, and nobody else gets the port.
    _refusing: TcpSocket,
    servers: Vec<JoinHandle<()>>,
}

impl DemoSite {
    /// Starts the site on ports that the system chooses. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When loopback has no port left or this is not a tokio runtime with I/O.
    pub fn start() -> io::Result<DemoSite> {
        let (main, main_address) = bind()?;
        let (widgets, widget_address) = bind()?;
        let refusing = TcpSocket::new_v4()?;
        refusing.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let site = Arc::new(Site {
            ledger: Ledger::default(),
            widget_origin: format!("http://localhost:{}", widget_address.port()),
            refused_origin: format!("http://127.0.0.1:{}", refusing.local_addr()?.port()),
            outages: Mutex::default(),
            secret: rand::random(),
        });
        let servers = vec![
            tokio::spawn(serve(main, main_routes(site.clone()), site.ledger.clone())),
            tokio::spawn(serve(widgets, widget_routes(site.clone()), site.ledger.clone())),
        ];
        Ok(DemoSite { site, origin: format!("http://{main_address}"), _refusing: refusing, servers })
    }

    /// Where the site is, for example `http://127.0.0.1:40123`: the origin to enrol.
    pub fn origin(&self) -> String {
        self.origin.clone()
    }

    /// Where its widgets for frames are, for example `http://localhost:40124`.
    pub fn widget_origin(&self) -> String {
        self.site.widget_origin.clone()
    }

    /// What was submitted so far; stays readable when the site has stopped.
    pub fn ledger(&self) -> Ledger {
        self.site.ledger.clone()
    }

    /// Stops listening and closes every connection, those included that wait for an answer. Returns when all is closed.
    pub async fn stop(mut self) {
        for server in std::mem::take(&mut self.servers) {
            server.abort();
            // Ends at once: an aborted task has nothing to wait for, and drops its connections with it.
            let _ = server.await;
        }
    }
}

impl Drop for DemoSite {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

fn main_routes(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(article::front_page))
        .route("/articles/{slug}", get(article::show))
        .route("/articles/{slug}/comments", post(comments::submit))
        .route("/api/articles/{slug}/comments", post(comments::submit_json))
        .route("/embed/{slug}", get(article::embed).post(comments::submit_embed))
        .route("/search", get(article::search))
        .route("/newsletter", post(article::newsletter))
        .route("/recaptcha/api2/anchor", get(article::captcha_frame))
        .route("/join", get(accounts::join).post(accounts::join_submit))
        .route("/join/by-mail", get(accounts::by_mail).post(accounts::by_mail_submit))
        .route("/join/check-your-email", get(accounts::check_your_email))
        .route("/join/code", get(accounts::by_code).post(accounts::by_code_submit))
        .route("/join/code/verify", get(accounts::verify).post(accounts::verify_submit))
        .route("/join/guarded", get(accounts::guarded).post(accounts::guarded_submit))
        .route("/confirm/{token}", get(accounts::confirm).post(accounts::confirm_submit))
        .route("/login", get(login::form).post(login::submit))
        .route("/account", get(login::account))
        .route("/assets/{name}", get(assets::file))
        .route("/images/{name}", get(assets::image))
        .fallback(article::not_found)
        .with_state(site)
}

fn widget_routes(site: Arc<Site>) -> Router {
    Router::new()
        .route("/threads/{slug}", get(article::widget).post(comments::submit_widget))
        .route("/assets/{name}", get(assets::file))
        .fallback(article::not_found)
        .with_state(site)
}

async fn serve(listener: TcpListener, routes: Router, ledger: Ledger) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, routes.clone(), ledger.clone()));
                }
                // Out of descriptors, or the peer was gone before we looked: the next one may do, a little later.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, routes: Router, ledger: Ledger) {
    // Nagle's algorithm would hold small answers back for 40 ms.
    let _ = stream.set_nodelay(true);
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request: Request<Incoming>| {
        ledger.count(request.method().as_str(), request.uri().path());
        let answer = routes.call(request);
        async move {
            let response: Response = answer.await.unwrap_or_else(|never| match never {});
            match response.extensions().get::<manners::HangUp>() {
                Some(_) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
                None => Ok(response),
            }
        }
    });
    // An error here is the client's going away, or our own hanging up.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
