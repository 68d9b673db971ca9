//! Takes a page apart, enough to tell text that a visitor sees from markup and from scripts.
//!
//! Not an HTML parser: it never fails, reads each byte once, and where a page is broken it may take some text too
//! much or too little. What is hidden by an attribute on the spot is left out; what a style sheet hides is not known.

/// A page, or a plain text, in parts.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The `<title>`, plain.
    pub(super) title: String,
    /// The text of each block.
    pub(super) blocks: Vec<Block>,
    /// Every visible start tag, lower case, one a line.
    pub(super) tags: String,
    /// What stands in `<script>`, as it is.
    pub(super) scripts: String,
}

/// A paragraph, a cell, a heading.
#[derive(Debug)]
pub(super) struct Block {
    /// White space single, entities resolved.
    pub(super) text: String,
    /// Whether it stands in an element made for errors and notices.
    pub(super) alert: bool,
}

/// Elements that do not break the line they are in.
const INLINE: &[&str] = &[
    "a", "abbr", "b", "bdi", "bdo", "big", "center", "cite", "code", "em", "font", "i", "ins", "kbd", "label", "mark",
    "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
];
/// Elements without an end tag.
const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];
/// Elements whose content nobody sees, or only somebody without scripts.
const UNSEEN: &[&str] = &["style", "noscript", "template", "svg", "datalist", "object"];
/// Longest tag that is read; the rest of a longer one (an image inside an attribute) is passed over.
const MAX_TAG: usize = 2_000;

/// Whether a text is markup rather than prose.
pub(super) fn is_markup(text: &str) -> bool {
    text.match_indices('<').any(|(at, _)| {
        let rest = &text[at + 1..];
        let name_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        let name = &rest[..name_end];
        rest.starts_with("!--")
            || rest.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("!doctype"))
            || (name.starts_with(|c: char| c.is_ascii_alphabetic())
                && rest[name_end..].starts_with(['>', ' ', '/', '\n', '\t', '\r']))
    })
}

/// Takes `text` apart.
pub(super) fn read(text: &str) -> Page {
    let mut page = Page::default();
    if !is_markup(text) {
        let lines = text.lines().map(plain).filter(|line| !line.is_empty());
        page.blocks = lines.map(|text| Block { text, alert: false }).collect();
        return page;
    }
    let mut block = String::new();
    // The element that hides what is in it, and how many of the same name are open inside.
    let mut hidden: Option<(String, usize)> = None;
    // Likewise the element made for errors.
    let mut alert: Option<(String, usize)> = None;
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        if hidden.is_none() {
            block.push_str(&rest[..at]);
        }
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let Some(tag) = Tag::read(rest) else {
            // A lone `<`.
            if hidden.is_none() {
                block.push('<');
            }
            rest = &rest[1..];
            continue;
        };
        rest = &rest[tag.length..];
        if hidden.is_some() {
            follow(&mut hidden, &tag);
            continue;
        }
        if !INLINE.contains(&tag.name.as_str()) {
            page.end_block(&mut block, alert.is_some());
        }
        if alert.is_some() {
            follow(&mut alert, &tag);
            if alert.is_none() {
                page.end_block(&mut block, true);
            }
        } else if tag.is_alert() {
            page.end_block(&mut block, false);
            alert = Some((tag.name.clone(), 1));
        }
        if tag.closes {
            continue;
        }
        if let "script" | "title" | "textarea" = tag.name.as_str() {
            let end = find_end(rest, &tag.name);
            match tag.name.as_str() {
                "script" => {
                    page.scripts.push_str(&rest[..end]);
                    page.scripts.push('\n');
                }
                "title" if page.title.is_empty() => page.title = plain(&rest[..end]),
                // What somebody typed is not what the site says.
                _ => {}
            }
            rest = &rest[end..];
        }
        if tag.is_hidden() {
            if !VOID.contains(&tag.name.as_str()) && !tag.text.ends_with("/>") {
                hidden = Some((tag.name, 1));
            }
            continue;
        }
        page.tags.push_str(&tag.text);
        page.tags.push('\n');
    }
    if hidden.is_none() {
        block.push_str(rest);
    }
    page.end_block(&mut block, alert.is_some());
    page
}

/// Keeps count of the open elements inside one; None once it is closed.
fn follow(element: &mut Option<(String, usize)>, tag: &Tag) {
    if let Some((name, depth)) = element
        && *name == tag.name
    {
        *depth = if tag.closes { *depth - 1 } else { *depth + 1 };
        if *depth == 0 {
            *element = None;
        }
    }
}

impl Page {
    fn end_block(&mut self, block: &mut String, alert: bool) {
        let text = plain(block);
        block.clear();
        if !text.is_empty() {
            self.blocks.push(Block { text, alert });
        }
    }

    /// Characters that a visitor reads.
    pub(super) fn length(&self) -> usize {
        self.blocks.iter().map(|block| block.text.chars().count()).sum()
    }
}

/// Where the end tag of `name` begins in `rest`; the end of `rest` if there is none.
fn find_end(rest: &str, name: &str) -> usize {
    rest.match_indices("</")
        .find(|(at, _)| rest[at + 2..].get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)))
        .map_or(rest.len(), |(at, _)| at)
}

struct Tag {
    name: String,
    closes: bool,
    /// Lower case, on one line, cut at [`MAX_TAG`].
    text: String,
    length: usize,
}

impl Tag {
    /// The tag that `rest`, which begins with `<`, begins with.
    fn read(rest: &str) -> Option<Tag> {
        let closes = rest[1..].starts_with('/');
        let name_at = if closes { 2 } else { 1 };
        let after = &rest[name_at..];
        if !after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '!' || c == '?') {
            return None;
        }
        let mut quote = None;
        let mut end = None;
        for (at, byte) in rest.bytes().enumerate().skip(name_at) {
            match (quote, byte) {
                (Some(open), _) if open == byte => quote = None,
                (Some(_), _) => {}
                // A quote opens a value only after `=`; elsewhere it is an apostrophe in a broken tag.
                (None, b'"' | b'\'') if rest[..at].trim_end().ends_with('=') => quote = Some(byte),
                (None, b'>') => {
                    end = Some(at + 1);
                    break;
                }
                _ => {}
            }
        }
        // A quote that is never closed: up to the next `>`.
        let length = end.or_else(|| rest.find('>').map(|at| at + 1)).unwrap_or(rest.len());
        let name_end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '!').unwrap_or(after.len());
        let cut = &rest[..floor(rest, length.min(MAX_TAG))];
        let text = cut.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        Some(Tag { name: after[..name_end].to_ascii_lowercase(), closes, text, length })
    }

    /// Whether class, id or role say that the element is for errors and notices.
    fn is_alert(&self) -> bool {
        !self.closes
            && !VOID.contains(&self.name.as_str())
            && !matches!(self.name.as_str(), "body" | "html" | "form" | "main" | "script" | "title")
            && ["error", "alert", "invalid", "warning", "danger", "notice", "fail"]
                .iter()
                .any(|word| self.text.contains(word))
    }

    fn is_hidden(&self) -> bool {
        if UNSEEN.contains(&self.name.as_str()) {
            return true;
        }
        let text = self.text.replace(": ", ":");
        text.contains("display:none")
            || text.contains("visibility:hidden")
            || text.contains("aria-hidden=\"true\"")
            || text.contains("type=\"hidden\"")
            || text.contains("type=hidden")
            || text
                .split([' ', '>', '/'])
                .any(|part| part == "hidden" || part == "hidden=\"\"" || part == "hidden=\"hidden\"")
    }
}

/// The largest place not after `at` where `text` may be cut.
pub(super) fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}

/// White space single, entities resolved, invisible characters gone.
fn plain(text: &str) -> String {
    let text = entities(text);
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().filter(|c| !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')));
    }
    out
}

/// Resolves the entities that turn up in messages; what it does not know it leaves.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| Some((entity(&rest[1..end])?, end))) {
            Some((resolved, end)) => {
                out.push(resolved);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return char::from_u32(code.ok()?);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" | "ldquo" | "rdquo" | "bdquo" | "laquo" | "raquo" => '"',
        "apos" | "lsquo" | "rsquo" | "sbquo" => '\'',
        "nbsp" | "ensp" | "emsp" | "thinsp" => ' ',
        "hellip" => '…',
        "ndash" => '–',
        "mdash" => '—',
        "auml" => 'ä',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "Auml" => 'Ä',
        "Ouml" => 'Ö',
        "Uuml" => 'Ü',
        "szlig" => 'ß',
        "eacute" => 'é',
        "egrave" => 'è',
        "ecirc" => 'ê',
        "agrave" => 'à',
        "aacute" => 'á',
        "acirc" => 'â',
        "atilde" => 'ã',
        "ccedil" => 'ç',
        "iacute" => 'í',
        "oacute" => 'ó',
        "ocirc" => 'ô',
        "otilde" => 'õ',
        "uacute" => 'ú',
        "ugrave" => 'ù',
        "igrave" => 'ì',
        "ograve" => 'ò',
        "ntilde" => 'ñ',
        "aring" => 'å',
        _ => return None,
    })
}
