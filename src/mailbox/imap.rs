//! One IMAP connection: TLS, login, read-only folder, search, fetch. Every call has a deadline, every answer a bound.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_imap::error::Error as ImapError;
use async_imap::types::Fetch;
use async_imap::{Client, Session};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use mail_parser::{Address, HeaderValue, MessageParser};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

use super::{Letter, letter};
use crate::config::{Mailbox, Tls};
use crate::tls;

/// How long connecting, and every single command, may take.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// The newest mails that are looked at in one search.
const MOST_LOOKED_AT: usize = 200;
/// The newest matching mails that are read in one search.
const MOST_READ: usize = 10;
/// So much of a mail is read.
const LONGEST_MAIL: usize = 1 << 20;
/// Where recipients stand.
const RECIPIENTS: [&str; 6] = ["To", "Cc", "Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To"];

/// Why the mailbox can't be used now.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Not reached, or lost.
    Connect(String),
    /// The login was refused.
    Auth(String),
    /// The folder is not there.
    Folder(String),
    /// A secret or certificate file that is not there.
    Settings(String),
}

/// What goes to the server and comes from it, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Stream for T {}

pub(super) struct Connection {
    session: Session<Box<dyn Stream>>,
    can_idle: bool,
}

impl Connection {
    /// Connects, logs in and opens the folder read-only.
    pub(super) async fn open(settings: &Mailbox, address: &str, limit: Duration) -> Result<Connection, Trouble> {
        let limit = limit.min(CALL_LIMIT);
        let host = settings.host.as_deref().unwrap_or_default();
        let port = settings.port.unwrap_or(if settings.tls == Tls::Implicit { 993 } else { 143 });
        let user = settings.user.as_deref().unwrap_or_default().replace("{address}", address);
        let reference =
            settings.password.as_ref().ok_or_else(|| Trouble::Settings("password is missing".to_owned()))?;
        let password = reference.resolve().map_err(|error| Trouble::Settings(format!("password: {error}")))?;

        let stream = within(limit, "connecting", TcpStream::connect((host, port))).await?;
        let stream = stream.map_err(|error| Trouble::Connect(format!("{host}:{port}: {error}")))?;
        let mut client = match settings.tls {
            Tls::Implicit => {
                let stream = within(limit, "the TLS handshake", protect(stream, host, settings)).await??;
                let mut client = Client::new(stream);
                greeted(&mut client, limit).await?;
                client
            }
            Tls::None => {
                let mut client = Client::new(Box::new(stream) as Box<dyn Stream>);
                greeted(&mut client, limit).await?;
                client
            }
            Tls::Starttls => {
                let mut plain = Client::new(stream);
                greeted(&mut plain, limit).await?;
                let upgraded = within(limit, "STARTTLS", plain.run_command_and_check_ok("STARTTLS", None)).await?;
                upgraded.map_err(|error| Trouble::Connect(format!("the server refuses STARTTLS: {error}")))?;
                Client::new(within(limit, "the TLS handshake", protect(plain.into_inner(), host, settings)).await??)
            }
        };
        let _ = &mut client;
        let session = match within(limit, "the login", client.login(&user, password.expose_secret())).await? {
            Ok(session) => session,
            Err((ImapError::No(why) | ImapError::Bad(why), _)) => return Err(Trouble::Auth(short(&why))),
            Err((error @ ImapError::Validate(_), _)) => return Err(Trouble::Auth(short(&error.to_string()))),
            Err((error, _)) => return Err(lost(&error)),
        };
        let mut connection = Connection { session, can_idle: false };
        let offers = within(limit, "CAPABILITY", connection.session.capabilities()).await?;
        connection.can_idle = offers.map_err(|error| lost(&error))?.has_str("IDLE");
        match within(limit, "EXAMINE", connection.session.examine(&settings.folder)).await? {
            Ok(_) => Ok(connection),
            Err(ImapError::No(why) | ImapError::Bad(why)) => {
                Err(Trouble::Folder(format!("{}: {}", settings.folder, short(&why))))
            }
            Err(error) => Err(lost(&error)),
        }
    }

    /// Mails to `address` that were taken in at or after `since` and are not in `seen`, which is brought up to date.
    pub(super) async fn letters(
        &mut self,
        address: &str,
        since: DateTime<Utc>,
        seen: &mut HashSet<u32>,
    ) -> Result<Vec<Letter>, Trouble> {
        let ours = self.search(address, since, seen).await?;
        let mut letters = Vec::new();
        for (uid, received_at) in ours {
            let query = format!("BODY.PEEK[]<0.{LONGEST_MAIL}>");
            let fetched = self.fetch(&uid.to_string(), &query).await?;
            if let Some(raw) = fetched.iter().find_map(|fetch| fetch.body()) {
                letters.push(letter::letter(raw, received_at));
            }
            seen.insert(uid);
        }
        Ok(letters)
    }

    /// The newest that match, with the times at which the server took them in.
    async fn search(
        &mut self,
        address: &str,
        since: DateTime<Utc>,
        seen: &mut HashSet<u32>,
    ) -> Result<Vec<(u32, DateTime<Utc>)>, Trouble> {
        // SINCE goes by the day in the server's own time zone.
        let day = (since - chrono::TimeDelta::days(1)).format("%d-%b-%Y");
        let query = match is_plain(address) {
            true => format!("SINCE {day} {}", to_any(address)),
            false => format!("SINCE {day}"),
        };
        let found = within(CALL_LIMIT, "SEARCH", self.session.uid_search(&query)).await?;
        let mut uids: Vec<u32> =
            found.map_err(|error| lost(&error))?.into_iter().filter(|uid| !seen.contains(uid)).collect();
        uids.sort_unstable_by(|a, b| b.cmp(a));
        uids.truncate(MOST_LOOKED_AT);
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        let set = uids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let fields = RECIPIENTS.join(" ").to_uppercase();
        let heads = self.fetch(&set, &format!("(UID INTERNALDATE BODY.PEEK[HEADER.FIELDS ({fields})])")).await?;
        let mut ours = Vec::new();
        for head in &heads {
            let (Some(uid), Some(received_at)) = (head.uid, head.internal_date()) else { continue };
            let received_at = received_at.to_utc();
            if received_at >= since && head.header().is_some_and(|header| is_to(header, address)) {
                ours.push((uid, received_at));
            } else {
                seen.insert(uid);
            }
        }
        ours.sort_unstable_by_key(|(_, at)| std::cmp::Reverse(*at));
        ours.truncate(MOST_READ);
        Ok(ours)
    }

    async fn fetch(&mut self, set: &str, query: &str) -> Result<Vec<Fetch>, Trouble> {
        let fetching = async {
            let mut answers = self.session.uid_fetch(set, query).await.map_err(|error| lost(&error))?;
            let mut fetched = Vec::new();
            while let Some(answer) = answers.next().await {
                fetched.push(answer.map_err(|error| lost(&error))?);
            }
            Ok(fetched)
        };
        within(CALL_LIMIT, "FETCH", fetching).await?
    }

    /// Waits for news of the folder: for `idle` where the server tells of them, else for `poll`.
    pub(super) async fn news(mut self, idle: Duration, poll: Duration) -> Result<Connection, Trouble> {
        if !self.can_idle {
            tokio::time::sleep(poll).await;
            within(CALL_LIMIT, "NOOP", self.session.noop()).await?.map_err(|error| lost(&error))?;
            return Ok(self);
        }
        let mut handle = self.session.idle();
        within(CALL_LIMIT, "IDLE", handle.init()).await?.map_err(|error| lost(&error))?;
        let (news, _stop) = handle.wait_with_timeout(idle);
        within(idle + CALL_LIMIT, "IDLE", news).await?.map_err(|error| lost(&error))?;
        let session = within(CALL_LIMIT, "DONE", handle.done()).await?.map_err(|error| lost(&error))?;
        Ok(Connection { session, can_idle: true })
    }

    /// Says good-bye.
    pub(super) async fn close(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.session.logout()).await;
    }
}

/// Waits for the server's greeting.
async fn greeted<T: AsyncRead + AsyncWrite + Unpin + fmt::Debug + Send>(
    client: &mut Client<T>,
    limit: Duration,
) -> Result<(), Trouble> {
    match within(limit, "the greeting", client.read_response()).await? {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Trouble::Connect("the server closed the connection at once".to_owned())),
        Err(error) => Err(Trouble::Connect(format!("what answers there is no IMAP server: {error}"))),
    }
}

async fn protect(stream: TcpStream, host: &str, settings: &Mailbox) -> Result<Box<dyn Stream>, Trouble> {
    let mut roots = tls::roots();
    if let Some(path) = &settings.ca_file {
        let refuse = |problem: String| Trouble::Settings(format!("ca_file {}: {problem}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| refuse(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
            roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        }
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| Trouble::Settings(format!("host: {error}")))?;
    let stream = tls::connector(roots).connect(name, stream).await;
    stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| Trouble::Connect(format!("TLS: {error}")))
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> Result<T, Trouble> {
    let late = || Trouble::Connect(format!("{what} took longer than {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.map_err(|_| late())
}

fn lost(error: &ImapError) -> Trouble {
    Trouble::Connect(short(&error.to_string()))
}

/// What a server says, short enough for a message.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Whether an address may stand in a quoted string of the protocol as it is.
fn is_plain(address: &str) -> bool {
    address.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

/// A search for a header with the address in it; what it finds is looked at more closely.
fn to_any(address: &str) -> String {
    let mut keys = RECIPIENTS.iter().map(|header| format!("HEADER {header} \"{address}\""));
    let last = keys.next().unwrap_or_default();
    keys.fold(last, |found, key| format!("OR {key} {found}"))
}

/// Whether exactly `address` is among the recipients that these headers name.
pub fn is_to(headers: &[u8], address: &str) -> bool {
    let Some(message) = MessageParser::default().parse_headers(headers) else { return false };
    let same = |other: &str| other.trim().trim_matches(['<', '>']).eq_ignore_ascii_case(address);
    let in_addresses = |list: &Address<'_>| list.iter().any(|one| one.address().is_some_and(same));
    message
        .headers()
        .iter()
        .filter(|header| RECIPIENTS.iter().any(|name| header.name().eq_ignore_ascii_case(name)))
        .any(|header| match header.value() {
            HeaderValue::Address(list) => in_addresses(list),
            HeaderValue::Text(text) => text.split([',', ' ', '\t']).any(same),
            HeaderValue::TextList(texts) => texts.iter().any(|text| same(text)),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_recipient_counts() {
        let to = |headers: &str| is_to(format!("{headers}\r\n\r\n").as_bytes(), "ann+7@example.org");
        assert!(to("To: Ann <ANN+7@example.org>"));
        assert!(to("To: bob@example.org, \"Ann, the\" <ann+7@example.org>"));
        assert!(to("Delivered-To: ann+7@example.org"));
        assert!(to("X-Original-To: <ann+7@example.org>"));
        assert!(!to("To: ann@example.org"));
        assert!(!to("To: joann+7@example.org"));
        assert!(!to("To: \"ann+7@example.org\" <eve@example.org>"), "a name is no address");
        assert!(!to("From: ann+7@example.org"));
    }

    #[test]
    fn an_address_that_would_change_the_search_is_not_put_into_it() {
        assert!(is_plain("ann+7@example.org"));
        assert!(!is_plain("ann\"@example.org"));
        assert!(!is_plain("änn@example.org"));
        assert!(to_any("a@b").starts_with("OR HEADER X-Envelope-To \"a@b\" OR "));
    }
}
