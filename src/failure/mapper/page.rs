//! What a page says: its wording first, sentence by sentence, then its markup.
//!
//! The danger is the page that talks about a failure without being one: an article about CAPTCHAs, a help page that
//! quotes an error. So wording counts only where it addresses the visitor: in a short block, not quoted, not after
//! "if" or "how to"; and on a long page a cookie banner counts only where it is a dialog over the page.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::super::{Failure, FailureReason};
use super::codes::FLOOD_PAUSE;
use super::html::{self, Page};
use super::rules::{Hit, Rules};
use super::{net, status};

static PHRASES: LazyLock<Rules> = LazyLock::new(|| Rules::parse(include_str!("pages.txt")));
static MARKUP: LazyLock<(Rules, Rules)> = LazyLock::new(|| {
    let source = include_str!("markup.txt");
    (Rules::parse_labelled(source, Some("tag")), Rules::parse_labelled(source, Some("script")))
});

/// Characters of visible text beyond which a page is more than a message.
const LONG_PAGE: usize = 2_500;
/// Characters of visible text beyond which a page has room for hints that are no errors.
const ROOMY_PAGE: usize = 400;
/// Codes whose wording is also that of labels and hints: "enter your email", "password must have 8 characters".
const HINTS: &[&str] = &[
    "form.invalid",
    "registration.password",
    "registration.email_invalid",
    "registration.username_invalid",
    "captcha.present",
];
/// Characters of a block beyond which it is running text, on a long page and on a short one.
const RUNNING_TEXT: (usize, usize) = (260, 700);
/// Characters of a sentence that no message has.
const LONG_SENTENCE: usize = 420;
/// Blocks that are read, from the top and from the end: messages stand at either.
const MAX_BLOCKS: usize = 4_000;
/// Bytes of script that are read.
const MAX_SCRIPTS: usize = 256 * 1024;

/// What a page shows; None where it shows no failure.
pub(super) fn map(text: &str) -> Option<Failure> {
    let page = html::read(text);
    let long = page.length() > LONG_PAGE;
    let roomy = page.length() > ROOMY_PAGE;
    let sentences = sentences(&page, long);

    if !long && let Some(failure) = chrome_error_page(&sentences).or_else(|| server_error_page(&page, &sentences)) {
        return Some(failure);
    }
    let wording = sentences
        .iter()
        .filter_map(|sentence| PHRASES.first(&sentence.text).map(|hit| (sentence, hit)))
        .filter(|(sentence, hit)| addresses_the_visitor(&sentence.text, hit))
        .filter(|(sentence, hit)| !roomy || sentence.alert || !HINTS.contains(&hit.class.code))
        .min_by_key(|(_, hit)| hit.rank);
    let tags = first_of_lines(&MARKUP.0, &page.tags, long);
    let scripts = page.scripts.get(..html::floor(&page.scripts, MAX_SCRIPTS)).unwrap_or_default().to_lowercase();
    let scripts = MARKUP.1.first(&scripts).map(|hit| (hit, ""));
    let markup =
        [tags, scripts].into_iter().flatten().min_by_key(|(hit, _)| hit.class.reason != FailureReason::Blocked);

    // A success, and an account or comment that exists, outweighs the widgets and banners around it.
    let succeeded = sentences.iter().any(|sentence| SUCCESS.is_match(&sentence.text));
    let obstacle = |reason| matches!(reason, FailureReason::CaptchaPresent | FailureReason::PopupBlocking);
    match (wording, markup) {
        // A wall with a widget on it: what kind of widget says more than "blocked".
        (Some((sentence, hit)), _) if !(succeeded && obstacle(hit.class.reason)) => {
            let failure = hit.class.failure(&sentence.original);
            Some(failure.after(match hit.class.code {
                "form.flood" => named_wait(&sentences).or(Some(FLOOD_PAUSE)),
                "block.rate_limit" => named_wait(&sentences),
                _ => None,
            }))
        }
        (_, Some((hit, evidence))) if !(succeeded && obstacle(hit.class.reason)) => {
            let class = hit.class;
            Some(class.failure(evidence.get(..html::floor(evidence, 100)).unwrap_or_default()))
        }
        _ => None,
    }
}

struct Sentence {
    /// As the patterns want it.
    text: String,
    /// As the page has it.
    original: String,
    /// Whether it is presented as an error: by its element or its first word.
    alert: bool,
}

/// The sentences that may be messages, the title's first.
fn sentences(page: &Page, long: bool) -> Vec<Sentence> {
    let limit = if long { RUNNING_TEXT.0 } else { RUNNING_TEXT.1 };
    let skipped = page.blocks.len().saturating_sub(MAX_BLOCKS);
    let (head, tail) = (MAX_BLOCKS / 2, MAX_BLOCKS / 2 + skipped);
    let blocks = page.blocks.iter().enumerate();
    let blocks = blocks.filter(|(at, _)| skipped == 0 || *at < head || *at >= tail).map(|(_, block)| block);
    std::iter::once((&page.title, false))
        .chain(blocks.map(|block| (&block.text, block.alert)))
        .filter(|(block, _)| block.len() <= limit * 4 && block.chars().count() <= limit)
        .flat_map(|(block, alert)| split(block).into_iter().map(move |sentence| (sentence, alert)))
        .filter(|(original, _)| original.chars().count() <= LONG_SENTENCE)
        .map(|(original, alert)| {
            let text = plain(original);
            let alert = alert || text.starts_with("error") || text.starts_with("sorry");
            Sentence { text, original: original.to_owned(), alert }
        })
        .filter(|sentence| !sentence.text.is_empty())
        .collect()
}

/// Splits a block after full stops and their like. A split too few or too many does no harm.
fn split(block: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut chars = block.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let full = matches!(c, '。' | '！' | '？' | '।' | '؟');
        let next = chars.peek().map(|(_, next)| *next);
        if full || (matches!(c, '.' | '!' | '?' | '…') && next.is_none_or(char::is_whitespace)) {
            let end = at + c.len_utf8();
            parts.push(block[begin..end].trim());
            begin = end;
        }
    }
    parts.push(block[begin..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Lower case, composed, straight quotes, `email` for `e-mail`.
pub(super) fn plain(text: &str) -> String {
    let folded: String = text
        .nfc()
        .flat_map(char::to_lowercase)
        .filter(|c| !matches!(c, '\u{307}' | '\u{640}' | '\u{64b}'..='\u{652}'))
        .map(|c| match c {
            '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}' | '`' | '´' | 'ʼ' => '\'',
            '\u{201c}'..='\u{201f}' | '«' | '»' | '「' | '」' | '『' | '』' => '"',
            'أ' | 'إ' | 'آ' => 'ا',
            _ => c,
        })
        .collect();
    let single = folded.split_whitespace().collect::<Vec<_>>().join(" ");
    single.replace("e-mail", "email").trim_end_matches(['.', '。', '।', ' ']).to_owned()
}

static ASIDE: LazyLock<Regex> = LazyLock::new(|| {
    // At the start of a sentence, where it makes all that follows a condition; or anywhere before, where it reports.
    Regex::new(concat!(
        r"^(and |but |or |so |then |also,? |note:? )?(if|when|whenever|unless|until|once|how|why|what|which|where|while|although|to avoid|in case|wenn|falls|sobald|wie|warum|si|cuando|cómo|por qué|quand|lorsque|lorsqu'|comment |pourquoi|se |quando|come |perché|como |als |wanneer|hoe |waarom|jeśli|jeżeli|gdy|kiedy|jak |dlaczego|если|когда|как |почему|якщо|коли|як |чому|eğer|pokud|když|jak |proč|om |när |hur |varför|もし|如果|当|當|若|만약|إذا|عندما|كيف|यदि|अगर|जब)\b",
        r"|\b(such as|e\.g|for example|for instance|says?|said|saying|reads|reading|stating|states|shows?|showed|showing|displays?|displayed|called|means|includ\w+|known as|the (message|error|words?|phrase|text|term|screen|page)s? \W|discuss\w*|articles?|tutorial|blog|wrote|explain\w*|describ\w*|imagine|sometimes|often|usually|many (sites|websites|people|users|blogs)|most (sites|websites|people|users|blogs))\b",
    ))
    .expect("the pattern is a constant")
});

/// Whether the wording found in `sentence` is said to the reader, not told or quoted.
fn addresses_the_visitor(sentence: &str, hit: &Hit) -> bool {
    let before = sentence.get(..hit.start).unwrap_or_default();
    // A pattern may itself begin with what makes a condition of it, as in "als Spam markiert".
    let aside = ASIDE.is_match(before);
    let quoted = before.matches('"').count() % 2 == 1;
    !aside && !quoted
}

static SUCCESS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(awaiting|held for|in|requires|pending) (moderation|approval|review)|queue(d)? for (moderation|review|approval)",
        r"|(thank you|thanks) for (your comment|registering|signing up|commenting|your message|joining|confirming)",
        r"|(registration|sign-?up) (is |was )?(complete|successful)|(account|user) (has been |was |is )?(now )?(created|activated|registered)",
        r"|(comment|message|post) (has been|was|is) (posted|published|submitted|received|saved|sent|added)\b",
        r"|you have confirmed|(email|address) (has been|is|was) (now )?(confirmed|verified)",
        r"|(wartet auf|zur) (freischaltung|moderation|freigabe|prüfung)|en attente de (modération|validation)|(pendiente|espera) de (moderación|aprobación)",
        r"|in attesa di (moderazione|approvazione)|aguarda(ndo)? (moderação|aprovação)|wacht op (moderatie|goedkeuring)|oczekuje na (moderację|zatwierdzenie)",
        r"|ожидает (модерации|проверки|одобрения)|очікує (на )?(модерації|модерацію|перевірки|схвалення)|(onay|moderasyon|denetim) bekliyor|čeká na (schválení|moderaci)|väntar på (granskning|moderering|godkännande)",
        r"|承認待ち|等待(审核|審核)|승인 대기|بانتظار (المراجعة|الموافقة)|संपादन की प्रतीक्षा",
    ))
    .expect("the pattern is a constant")
});

/// The first rule, in the order of the file, that any line meets, and that line.
fn first_of_lines<'a>(rules: &Rules, lines: &'a str, long: bool) -> Option<(Hit, &'a str)> {
    lines
        .lines()
        .filter(|line| line.contains(['=', '-']) || line.starts_with("<captcha"))
        .filter(|line| !line.contains("data-size=\"invisible\"") && !line.contains("data-size=invisible"))
        .filter_map(|line| rules.first(line).map(|hit| (hit, line)))
        // Nearly every page has a banner; on a long one only what is a dialog is in the way.
        .filter(|(hit, line)| {
            hit.class.reason != FailureReason::PopupBlocking
                || !long
                || ["modal", "dialog", "overlay", "wall", "backdrop"].iter().any(|word| line.contains(word))
        })
        .min_by_key(|(hit, _)| hit.rank)
}

/// Chrome's own error page names the network error.
fn chrome_error_page(sentences: &[Sentence]) -> Option<Failure> {
    let named = sentences.iter().find_map(|sentence| {
        let name = net::name_in(&sentence.original)?;
        // By itself or nearly so, as Chrome prints it.
        (sentence.original.len() <= name.len() + 40).then_some(name)
    })?;
    Some(super::map_net_error(named))
}

/// A web server's own error page: title or heading are a status and its phrase.
fn server_error_page(page: &Page, sentences: &[Sentence]) -> Option<Failure> {
    let title = plain(&page.title);
    let line = std::iter::once(&title).chain(sentences.iter().take(8).map(|sentence| &sentence.text));
    let status = line.filter_map(|line| status::of_heading(line)).next()?;
    status::map(status, None, "")
}

static WAIT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(\d{1,6}) ?(?:more )?(?:",
        r"(?<s>seconds?|secs?\b|s\b|sekund\w*|secondes?|segundos?|secondi|secondo|seconden|сек\w*|saniye|秒|초|ثاني\w*|ثوان\w*|सेकंड)",
        r"|(?<m>minutes?|mins?\b|minuten|minuter?|minutos?|minut[io]?|minuty?|мин\w*|хвилин\w*|dakika|分钟?|分鐘?|분|دقيقة|دقائق|मिनट)",
        r"|(?<h>hours?|hrs?\b|stunden?|heures?|horas?|or[ae]\b|uur|godzin\w*|час\w*|годин\w*|saat|hodin\w*|timm\w*|時間|小时|小時|시간|ساع\w*|घंट\w*)",
        r"|(?<d>days?|tage?n?\b|jours?|días?|giorn[io]|dias?|dagen|dni|дн\w*|день|gün|dn[íů]|dagar|天|일\b|يوم|أيام|दिन))",
    ))
    .expect("the pattern is a constant")
});

/// The wait that a message names: `try again in 20 minutes`.
fn named_wait(sentences: &[Sentence]) -> Option<Duration> {
    let found = sentences.iter().find_map(|sentence| WAIT.captures(&sentence.text))?;
    let number: u64 = found[1].parse().ok()?;
    let unit = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let (_, seconds) = unit.into_iter().find(|(name, _)| found.name(name).is_some())?;
    Some(Duration::from_secs(number * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_file_is_well_formed() {
        PHRASES.compile_all();
        MARKUP.0.compile_all();
        MARKUP.1.compile_all();
        super::super::ERRORS.compile_all();
    }
}
