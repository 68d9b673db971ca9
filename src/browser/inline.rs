//! Puts what a captured document shows into it: its pictures, style sheets, and what these use in turn. So it looks right
//! without the network, and years later.
//!
//! The bytes are those that Chrome has loaded for the page, whatever their origin; nothing is asked for anew. What Chrome has
//! not got any more, is too large, or would be too much or too late, keeps its address.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chromiumoxide::cdp::browser_protocol::network::GetResponseBodyParams;
use regex::{Captures, Regex};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::events::RequestWillBeSent;
use super::tab::Tab;

/// Bytes of one picture or style sheet.
const LARGEST: usize = 300_000;
/// Characters that all of them may add to a document, and that a document may have with them.
const MOST: usize = 1_000_000;
const MOST_WITH_DOCUMENT: usize = 4_500_000;
/// Asked for at a time, remembered at a time, and style sheets within style sheets.
const MOST_ADDRESSES: usize = 200;
const MOST_LOADS: usize = 1_000;
const DEEPEST: usize = 3;
/// Characters of style sheets that are gone through for a document, an address in one counted as so many: what is named a
/// thousand times costs no more.
const MOST_READ: usize = 2_000_000;
const ADDRESS_COUNTS: usize = 100;
/// An address that is longer is not remembered.
const LONGEST_ADDRESS: usize = 2_000;
/// So long Chrome may take to hand them over.
const LIMIT: Duration = Duration::from_millis(700);

/// In a style sheet: what it uses.
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)url\(\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)'|([^\s"'()\\]+))\s*\)"#)
        .expect("a constant that the tests compile")
});

/// By address, what captures of a tab have shown: the next one mostly shows it again.
pub(super) type Shown = Mutex<HashMap<String, Arc<Resource>>>;

#[derive(Debug)]
pub(super) struct Resource {
    kind: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Style(String),
    /// In base64.
    Other(String),
}

/// What the page has loaded to be shown, as its events tell.
#[derive(Default)]
pub(super) struct Loads {
    /// What is under way, by Chrome's id of the request: the address, which after a redirect is another than that of the
    /// answer, and the kind.
    asked: HashMap<String, (String, String)>,
    /// By address: the id of the request, and the kind.
    loaded: HashMap<String, (String, String)>,
}

impl Loads {
    pub(super) fn sent(&mut self, sent: &RequestWillBeSent) {
        let shows = matches!(sent.r#type.as_deref(), Some("Image" | "Stylesheet" | "Font"));
        let request = sent
            .request
            .as_ref()
            .filter(|request| shows && request.url.starts_with("http") && request.url.len() <= LONGEST_ADDRESS);
        if let Some(request) = request.filter(|_| self.asked.len() < MOST_LOADS) {
            let asked = || (without_fragment(&request.url), String::new());
            self.asked.entry(sent.request_id.clone()).or_insert_with(asked);
        }
    }

    pub(super) fn answered(&mut self, id: &str, status: Option<u16>, kind: Option<&str>) {
        let kind = kind.filter(|kind| matches!(status, Some(200 | 304)) && kept(kind));
        if let (Some(kind), Some(asked)) = (kind, self.asked.get_mut(id)) {
            kind.clone_into(&mut asked.1);
        }
    }

    pub(super) fn ended(&mut self, id: &str, bytes: f64) {
        let Some((url, kind)) = self.asked.remove(id) else { return };
        if !kind.is_empty() && bytes <= LARGEST as f64 && self.loaded.len() < MOST_LOADS {
            self.loaded.insert(url, (id.to_owned(), kind));
        }
    }
}

fn without_fragment(url: &str) -> String {
    url.split('#').next().unwrap_or_default().to_owned()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bytes {
    body: String,
    base64_encoded: bool,
}

impl Tab {
    /// `html` with the content of `uses[N]` in place of each mark `{marks}N;`, or its address.
    pub(super) async fn with_what_it_shows(&self, html: &str, marks: &str, uses: &[String], until: Instant) -> String {
        let until = until.min(Instant::now() + LIMIT);
        let known = |shown: &HashMap<String, Arc<Resource>>| uses.iter().all(|url| shown.contains_key(url));
        if !uses.is_empty() && !self.with_shown(|shown| known(shown)) {
            // What is not there in time is left out.
            let _ = tokio::time::timeout_at(until, self.look_at_what_is_loaded(until)).await;
        }
        let room = MOST.min(MOST_WITH_DOCUMENT.saturating_sub(html.len()));
        let bounds = Bounds { room, read: MOST_READ };
        self.with_shown(|shown| filled(html, marks, uses, shown, bounds))
    }

    async fn look_at_what_is_loaded(&self, until: Instant) -> Option<()> {
        let page = self.page().ok()?;
        // Each is asked for once: what is gone by then, or too large, does not come back.
        let wanted = self.state.with(|inner| std::mem::take(&mut inner.loads.loaded));
        // All at once: Chrome answers in its own time.
        let sent = wanted.into_iter().take(MOST_ADDRESSES).map(|(url, (id, kind))| {
            let reply = page.send(&GetResponseBodyParams::new(id)).of::<Bytes>();
            (url, kind, reply)
        });
        let sent: Vec<_> = sent.collect();
        let mut room =
            MOST.saturating_sub(self.with_shown(|shown| shown.values().map(|one| one.size()).sum::<usize>()));
        for (url, kind, reply) in sent {
            let Ok(bytes) = reply.until(until).await else { continue };
            let Some(resource) = Resource::of(kind, bytes).filter(|one| one.size() <= room) else { continue };
            room -= resource.size();
            self.with_shown(|shown| shown.insert(url, Arc::new(resource)));
        }
        Some(())
    }

    fn with_shown<T>(&self, act: impl FnOnce(&mut HashMap<String, Arc<Resource>>) -> T) -> T {
        act(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Resource {
    fn of(kind: String, bytes: Bytes) -> Option<Resource> {
        let content = match (is_style(&kind), bytes.base64_encoded) {
            (true, false) => Content::Style(bytes.body),
            (true, true) => Content::Style(String::from_utf8(STANDARD.decode(bytes.body).ok()?).ok()?),
            (false, true) => Content::Other(bytes.body),
            // A picture that is text: SVG.
            (false, false) => Content::Other(STANDARD.encode(bytes.body)),
        };
        let resource = Resource { kind, content };
        (resource.size() <= LARGEST / 3 * 4).then_some(resource)
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::Style(text) | Content::Other(text) => text.len(),
        }
    }
}

/// Whether a document shows such things: pictures, fonts, style sheets. The kind is a server's word, and becomes a part of an address.
fn kept(kind: &str) -> bool {
    let plain = kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+.-".contains(&byte));
    plain
        && (is_style(kind)
            || ["image/", "font/", "application/font", "application/x-font"]
                .iter()
                .any(|start| kind.starts_with(start)))
}

fn is_style(kind: &str) -> bool {
    kind == "text/css"
}

/// What may still be done for a document, in characters.
struct Bounds {
    /// That it may grow by.
    room: usize,
    /// Of style sheets that may be gone through.
    read: usize,
}

impl Bounds {
    /// Takes the room for `text`, if there is so much.
    fn fit(&mut self, text: String) -> Option<String> {
        self.room = self.room.checked_sub(text.len())?;
        Some(text)
    }
}

/// See [`Tab::with_what_it_shows`].
fn filled(
    html: &str,
    marks: &str,
    uses: &[String],
    shown: &HashMap<String, Arc<Resource>>,
    mut bounds: Bounds,
) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, after)) = rest.split_once(marks) {
        out.push_str(before);
        rest = after;
        let Some((number, after)) = after.split_once(';') else { continue };
        let Some(url) = number.parse::<usize>().ok().and_then(|n| uses.get(n)) else { continue };
        rest = after;
        let place = if out.ends_with('>') { Place::Sheet } else { Place::Address };
        out.push_str(&content(url, place, shown, &mut bounds));
    }
    out + rest
}

/// Where a content comes to stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// As the text of a `<style>`.
    Sheet,
    /// As an address in an attribute or in a style sheet.
    Address,
}

fn content(url: &str, place: Place, shown: &HashMap<String, Arc<Resource>>, bounds: &mut Bounds) -> String {
    let found = shown.get(url).and_then(|resource| {
        let text = match (&resource.content, place) {
            (Content::Style(text), Place::Sheet) => sheet(text, url, shown, bounds, 0)?,
            (Content::Style(text), Place::Address) => {
                data(&resource.kind, &STANDARD.encode(sheet(text, url, shown, bounds, 1)?))
            }
            (Content::Other(base64), Place::Address) => data(&resource.kind, base64),
            (Content::Other(_), Place::Sheet) => return None,
        };
        bounds.fit(text)
    });
    found.unwrap_or_else(|| match place {
        // Chrome writes addresses without quotes, angle brackets and blanks; a star is all that could end the remark.
        Place::Sheet => format!("/* not kept: {} */", url.replace('*', "%2A")),
        Place::Address => url.replace('&', "&amp;"),
    })
}

fn data(kind: &str, base64: &str) -> String {
    format!("data:{kind};base64,{base64}")
}

/// A style sheet from `at`, with what it uses; nothing in it ends the element in which it stands. None: too much was gone
/// through already.
fn sheet(
    text: &str,
    at: &str,
    shown: &HashMap<String, Arc<Resource>>,
    bounds: &mut Bounds,
    depth: usize,
) -> Option<String> {
    bounds.read = bounds.read.checked_sub(text.len())?;
    let base = Url::parse(at).ok();
    let text = ADDRESS.replace_all(text, |found: &Captures<'_>| {
        let address = (1..=3).find_map(|n| found.get(n)).map_or("", |address| address.as_str());
        let left = bounds.read.checked_sub(ADDRESS_COUNTS);
        let url = left.zip(base.as_ref()).and_then(|(_, base)| base.join(address).ok()).filter(|url| url.has_host());
        let Some(mut url) = url else { return found[0].to_owned() };
        bounds.read -= ADDRESS_COUNTS;
        url.set_fragment(None);
        let used = shown.get(url.as_str()).and_then(|resource| {
            let text = match &resource.content {
                Content::Style(_) if depth >= DEEPEST => return None,
                Content::Style(text) => STANDARD.encode(sheet(text, url.as_str(), shown, bounds, depth + 1)?),
                Content::Other(base64) => base64.clone(),
            };
            bounds.fit(data(&resource.kind, &text))
        });
        format!("url(\"{}\")", used.as_deref().unwrap_or(url.as_str()))
    });
    Some(text.replace("</", "<\\/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: &str = "ph-0-";

    fn shown(resources: &[(&str, &str, &str)]) -> HashMap<String, Arc<Resource>> {
        let resource = |kind: &str, text: &str| {
            let content = match is_style(kind) {
                true => Content::Style(text.to_owned()),
                false => Content::Other(text.to_owned()),
            };
            Arc::new(Resource { kind: kind.to_owned(), content })
        };
        resources.iter().map(|(url, kind, text)| ((*url).to_owned(), resource(kind, text))).collect()
    }

    fn fill(html: &str, uses: &[&str], shown: &HashMap<String, Arc<Resource>>, room: usize) -> String {
        let uses: Vec<String> = uses.iter().map(|url| (*url).to_owned()).collect();
        filled(html, MARKS, &uses, shown, Bounds { room, read: MOST_READ })
    }

    #[test]
    fn pictures_and_sheets_stand_in_the_document_and_what_is_not_there_keeps_its_address() {
        let shown = shown(&[
            (
                "http://a/s/x.css",
                "text/css",
                "p{background:url(../i.png)}q{background:url('none.png')}</style><script>",
            ),
            ("http://a/i.png", "image/png", "QUJD"),
        ]);
        let html = "<style>ph-0-0;</style><img src=\"ph-0-1;\"><img src=\"ph-0-2;\"><style>ph-0-2;</style>ph-0-9;ph-0-";
        let uses = ["http://a/s/x.css", "http://a/i.png", "http://a/gone?a=1&b=2*/"];
        assert_eq!(
            fill(html, &uses, &shown, MOST),
            concat!(
                "<style>p{background:url(\"data:image/png;base64,QUJD\")}q{background:url(\"http://a/s/none.png\")}<\\/style><script>",
                "</style><img src=\"data:image/png;base64,QUJD\"><img src=\"http://a/gone?a=1&amp;b=2*/\">",
                "<style>/* not kept: http://a/gone?a=1&b=2%2A/ */</style>9;"
            )
        );
    }

    #[test]
    fn it_never_grows_beyond_its_room_and_sheets_that_use_each_other_end() {
        let shown = shown(&[
            ("http://a/x.css", "text/css", "@import url(y.css);"),
            ("http://a/y.css", "text/css", "@import url(x.css);@import url(y.css);"),
            ("http://a/i.png", "image/png", "QUJD"),
        ]);
        let html = "<img src=\"ph-0-0;\">".repeat(100);
        let filled = fill(&html, &["http://a/i.png"], &shown, 300);
        assert!(filled.len() < html.len() + 300 + 100 * "http://a/i.png".len(), "{}", filled.len());
        assert!(filled.contains("data:image/png") && filled.contains("http://a/i.png"));
        let sheets = fill("<style>ph-0-0;</style>", &["http://a/x.css"], &shown, MOST);
        assert!(sheets.starts_with("<style>@import url(\"data:text/css;base64,"), "{sheets}");
    }

    #[test]
    fn sheets_that_name_each_other_thousands_of_times_are_gone_through_only_so_often() {
        let many = |name: &str| format!("url({name})").repeat(10_000);
        let shown = shown(&[
            ("http://a/x.css", "text/css", &many("y.css")),
            ("http://a/y.css", "text/css", &many("z.css")),
            ("http://a/z.css", "text/css", &many("none.png")),
        ]);
        let uses = ["http://a/x.css".to_owned()];
        let mut bounds = Bounds { room: MOST, read: MOST_READ };
        let read = sheet("url(x.css)", &uses[0], &shown, &mut bounds, 0);
        assert!(read.is_some() && bounds.read < ADDRESS_COUNTS, "{}", bounds.read);
    }

    #[test]
    fn only_what_a_document_shows_is_kept_and_a_kind_can_hold_no_markup() {
        for kind in ["image/svg+xml", "image/png", "font/woff2", "text/css", "application/font-woff"] {
            assert!(kept(kind), "{kind}");
        }
        for kind in ["text/html", "text/javascript", "image/png\" onload=\"alert(1)", "image/png;x", ""] {
            assert!(!kept(kind), "{kind}");
        }
    }
}
