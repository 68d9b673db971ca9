//! Shows saved pages to Chrome, which opens no files here: from a port of this machine, for as long as the command runs.
//!
//! A saved page is judged as it lies there. Its scripts have run already, before it was saved; what it would load comes
//! from places that may be gone or slow. So it gets no scripts, no network, and nowhere to send a form. Its address says
//! nothing of the file's name, because addresses are evidence; and nobody else on the machine can guess it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::task::JoinHandle;

/// Without `allow-scripts` the sandbox makes the parser treat the page as one without scripts: what stands in `<noscript>`
/// is part of it.
const POLICY: &str =
    "sandbox; default-src 'none'; style-src 'unsafe-inline' data:; img-src data:; font-src data:; form-action 'none'";

/// Media type and content, by path.
type Shelf = Arc<Mutex<HashMap<String, (&'static str, Bytes)>>>;

/// The server.
pub struct SavedPages {
    address: SocketAddr,
    secret: u128,
    last: AtomicU64,
    shelf: Shelf,
    server: JoinHandle<()>,
}

/// A page that can be opened. Dropping it takes it off the server.
pub struct Saved<'a> {
    url: String,
    path: String,
    pages: &'a SavedPages,
}

impl SavedPages {
    /// Starts to listen.
    ///
    /// # Errors
    /// There is no port.
    pub async fn serve() -> io::Result<SavedPages> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shelf = Shelf::default();
        let app = Router::new().fallback(answer).with_state(shelf.clone());
        let server = tokio::spawn(async move {
            // It ends with the command; before that only a lost listener could end it, and then Chrome says so.
            let _ = axum::serve(listener, app).await;
        });
        Ok(SavedPages { address, secret: rand::random(), last: AtomicU64::new(0), shelf, server })
    }

    /// Makes a page ready to be opened. `file` only tells XHTML from HTML.
    pub fn put(&self, file: &Path, content: Vec<u8>) -> Saved<'_> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let path = format!("/{:032x}/{number}", self.secret);
        let xml = file.extension().is_some_and(|extension| extension == "xhtml" || extension == "xht");
        // What is valid UTF-8 is meant as that, even where the page says another or, as Chrome would then guess another,
        // nothing. Else the page says itself.
        let kind = match (xml, std::str::from_utf8(&content).is_ok()) {
            (true, _) => "application/xhtml+xml",
            (false, true) => "text/html; charset=utf-8",
            (false, false) => "text/html",
        };
        lock(&self.shelf).insert(path.clone(), (kind, content.into()));
        Saved { url: format!("http://{}{path}", self.address), path, pages: self }
    }
}

impl Drop for SavedPages {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Saved<'_> {
    /// Its address for now.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Saved<'_> {
    fn drop(&mut self) {
        lock(&self.pages.shelf).remove(&self.path);
    }
}

async fn answer(State(shelf): State<Shelf>, uri: Uri) -> Response {
    let found = lock(&shelf).get(uri.path()).cloned();
    let Some((kind, content)) = found else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, content).into_response()
}

/// Nothing is left half done in there by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
