//! Bytes to and from Chrome: a pair of pipes for a local browser, a WebSocket for a remote one.
//!
//! Both ends hand whole JSON texts to the router. Whatever ends a wire — end of file, a reset, a message without end —
//! ends it for good, with a text that says why.

use std::borrow::Cow;
use std::collections::HashMap;

use chromiumoxide::Connection;
use chromiumoxide::error::CdpError;
use chromiumoxide::types::{CallId, EventMessage, Message, Method, MethodId};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::json;

/// A message longer than this is skipped: nothing we ask for is, so only a fault makes one.
const LONGEST_MESSAGE: usize = 128 << 20;

/// Writes queued messages, as many at a time as there are.
pub(super) async fn write_pipe(mut pipe: pipe::Sender, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    let mut batch = Vec::with_capacity(8192);
    while let Some(message) = queue.recv().await {
        batch.clear();
        batch.extend_from_slice(&message);
        batch.push(0);
        while let Ok(message) = queue.try_recv() {
            batch.extend_from_slice(&message);
            batch.push(0);
        }
        // A closed pipe is noticed by the reading side, which fails all that wait.
        if pipe.write_all(&batch).await.is_err() {
            return;
        }
        batch.shrink_to(1 << 20);
    }
}

/// Hands each message to `deliver` until the pipe ends, and says how it ended.
pub(super) async fn read_pipe(mut pipe: pipe::Receiver, mut deliver: impl FnMut(Cow<'_, str>)) -> String {
    let mut buffer: Vec<u8> = Vec::with_capacity(64 << 10);
    let mut scanned = 0;
    let mut skipping = false;
    loop {
        buffer.reserve(64 << 10);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) => return "its pipe was closed".to_owned(),
            Ok(_) => {}
            Err(error) => return format!("its pipe can't be read: {error}"),
        }
        let mut start = 0;
        while let Some(length) = buffer[scanned.max(start)..].iter().position(|byte| *byte == 0) {
            let end = scanned.max(start) + length;
            if !std::mem::take(&mut skipping) {
                deliver(String::from_utf8_lossy(&buffer[start..end]));
            }
            start = end + 1;
            scanned = start;
        }
        buffer.drain(..start);
        scanned = buffer.len();
        if scanned > LONGEST_MESSAGE {
            if !std::mem::replace(&mut skipping, true) {
                // The beginning is enough to tell whose answer it was.
                deliver(String::from_utf8_lossy(&buffer[..256]));
            }
            buffer.clear();
            scanned = 0;
        }
        if buffer.is_empty() {
            buffer.shrink_to(1 << 20);
        }
    }
}

/// Any event, as it comes.
#[derive(Debug, Deserialize, Serialize)]
struct AnyEvent {
    method: String,
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(default)]
    params: serde_json::Value,
}

impl Method for AnyEvent {
    fn identifier(&self) -> MethodId {
        self.method.clone().into()
    }
}

impl EventMessage for AnyEvent {
    fn session_id(&self) -> Option<&str> {
        self.session_id.as_deref()
    }
}

/// A call as the router queues it.
#[derive(Deserialize)]
struct Queued {
    id: u64,
    method: String,
    #[serde(rename = "sessionId")]
    session_id: Option<String>,
    params: serde_json::Value,
}

/// A connection to a remote browser.
pub(super) struct Socket(Connection<AnyEvent>);

impl Socket {
    /// Connects to a `ws://` endpoint.
    pub(super) async fn connect(endpoint: &str) -> Result<Socket, String> {
        Connection::connect(endpoint).await.map(Socket).map_err(|error| error.to_string())
    }

    /// Sends what is queued and hands each message to `deliver`, until the connection ends.
    pub(super) async fn run(
        self,
        mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
        mut deliver: impl FnMut(Cow<'_, str>),
    ) -> String {
        let Socket(mut connection) = self;
        let mut ids: HashMap<CallId, u64> = HashMap::new();
        loop {
            tokio::select! {
                queued = queue.recv() => {
                    let Some(message) = queued else { return "it was let go".to_owned() };
                    let Ok(call) = serde_json::from_slice::<Queued>(&message) else { continue };
                    let session = call.session_id.map(Into::into);
                    if let Ok(id) = connection.submit_command(call.method.into(), session, call.params) {
                        ids.insert(id, call.id);
                    }
                }
                message = connection.next() => match message {
                    None => return "the connection was closed".to_owned(),
                    Some(Ok(Message::Event(event))) => {
                        if let Ok(text) = serde_json::to_string(&event) {
                            deliver(text.into());
                        }
                    }
                    Some(Ok(Message::Response(response))) => {
                        let Some(id) = ids.remove(&response.id) else { continue };
                        let answer = serde_json::json!({"id": id, "result": response.result, "error": response.error});
                        deliver(answer.to_string().into());
                    }
                    // What chromiumoxide can't read it hands over as text: mostly a lone surrogate.
                    Some(Err(CdpError::InvalidMessage(text, _))) => {
                        let Ok(mut value) = json::lenient::<serde_json::Value>(&text) else { continue };
                        if let Some(id) = value.get("id").and_then(serde_json::Value::as_u64) {
                            let Some(own) = usize::try_from(id).ok().and_then(|id| ids.remove(&CallId::new(id))) else {
                                continue;
                            };
                            value["id"] = own.into();
                        }
                        deliver(value.to_string().into());
                    }
                    Some(Err(error)) => return format!("the connection failed: {error}"),
                },
            }
        }
    }
}
