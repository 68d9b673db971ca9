//! What the site made of a submission, read from the page before and after it. Pure: texts in, verdict out.

use std::collections::HashSet;

use unicode_normalization::UnicodeNormalization;

use super::forms::{Description, Dictionary, Words};
use super::look::{PageText, View};
use crate::failure::mapper::{TextKind, map_text};
use crate::failure::{Failure, FailureReason};

/// Longest line that is taken for something the site says about the submission.
const LONGEST_MESSAGE: usize = 500;
/// Most new lines that are read as such.
const MOST_MESSAGES: usize = 400;

/// Counts occurrences of a text on a page as a person would: case, quotes, dashes, blanks and markup do not matter.
#[derive(Debug, Clone)]
pub struct Needle {
    words: Vec<String>,
    raw: String,
}

impl Needle {
    /// For a text that was typed.
    pub fn new(text: &str) -> Needle {
        Needle { words: words(text), raw: text.split_whitespace().collect::<Vec<_>>().join(" ") }
    }

    /// How often the page shows it.
    pub fn count(&self, page: &str) -> usize {
        if self.words.is_empty() {
            let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
            return if self.raw.is_empty() { 0 } else { page.matches(self.raw.as_str()).count() };
        }
        let page = words(page);
        let (first, length) = (&self.words[0], self.words.len());
        if page.len() < length {
            return 0;
        }
        (0..=page.len() - length).filter(|&i| page[i] == *first && page[i..i + length] == self.words[..]).count()
    }

    /// Whether the text is long enough that nobody else wrote the same by chance.
    pub fn is_telling(&self) -> bool {
        self.words.len() >= 4 || self.words.iter().map(|word| word.chars().count()).sum::<usize>() >= 24
    }
}

fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    for c in text.nfkc().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            word.push(c);
        } else if !matches!(c, '\'' | '’' | '\u{200b}'..='\u{200d}' | '\u{fe0f}' | '\u{ad}') && !word.is_empty() {
            out.push(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

/// A page at one moment, as far as it can say what became of a submission.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Address of the main frame.
    pub url: String,
    /// The whole text.
    pub text: String,
    /// Short texts where sites put their messages, with the words of role, class and id.
    pub notices: Vec<(String, String)>,
    /// What the browser holds against fields: selector and message.
    pub invalid: Vec<(String, String)>,
}

impl Shown {
    /// From a look at the page and its text.
    pub fn new(view: &View, text: PageText) -> Shown {
        let pages = || view.frames.iter().map(|frame| &frame.page);
        let notices =
            |page: &Description| page.notices.iter().map(|n| (n.text.clone(), n.words.clone())).collect::<Vec<_>>();
        let invalid =
            |page: &Description| page.invalid.iter().map(|f| (f.css.clone(), f.message.clone())).collect::<Vec<_>>();
        Shown {
            url: text.url,
            text: text.text,
            notices: pages().flat_map(notices).collect(),
            invalid: pages().flat_map(invalid).collect(),
        }
    }

    /// What is said here and was not said before: notices first, then new lines of text.
    pub fn news(&self, before: &Shown) -> Vec<String> {
        let tidy = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let old: HashSet<String> =
            before.text.lines().map(tidy).chain(before.notices.iter().map(|(text, _)| tidy(text))).collect();
        let mut seen = HashSet::new();
        let lines = self.notices.iter().map(|(text, _)| tidy(text)).chain(self.text.lines().map(tidy));
        lines
            .filter(|line| line.chars().any(char::is_alphanumeric) && line.len() <= LONGEST_MESSAGE)
            .filter(|line| !old.contains(line) && seen.insert(line.clone()))
            .take(MOST_MESSAGES)
            .collect()
    }

    /// Notices that are new and stand where sites put their errors.
    fn error_notices(&self, before: &Shown) -> Vec<&str> {
        let old: HashSet<&str> = before.notices.iter().map(|(text, _)| text.as_str()).collect();
        let dictionary_free = |words: &str| {
            let words = words.to_lowercase();
            ["error", "invalid", "danger", "fail", "alert-warning"].iter().any(|sign| words.contains(sign))
        };
        let new = self.notices.iter().filter(|(text, words)| !old.contains(text.as_str()) && dictionary_free(words));
        new.map(|(text, _)| text.as_str()).collect()
    }
}

/// The first of `lines` that says `meaning` of the dictionary.
pub fn saying<'a>(lines: &'a [String], meaning: &str) -> Option<&'a str> {
    let dictionary = Dictionary::standard();
    lines.iter().map(String::as_str).find(|line| dictionary.in_text(meaning, &Words::of_text(line)) > 0)
}

/// Why the site refused, in its own words; None where it says nothing of the kind.
///
/// `page_is_answer`: the whole page is the site's answer (it came with an error status), not the form's page with a
/// message on it.
pub fn refusal(before: &Shown, after: &Shown, page_is_answer: bool) -> Option<Failure> {
    let news = after.news(before);
    let ours = |failure: &Failure| {
        // What lies over a page or guards another form says nothing about this submission.
        !matches!(failure.reason, FailureReason::PopupBlocking | FailureReason::IframeMissed | FailureReason::Timeout)
    };
    for line in &news {
        if let Some(failure) = map_text(line, Some(TextKind::Page)).filter(ours) {
            return Some(Failure { message: said(line), ..failure });
        }
    }
    if let Some(text) = after.error_notices(before).first() {
        return Some(Failure::terminal(FailureReason::Unknown, "form.rejected", said(text)));
    }
    if page_is_answer {
        let text = news.join(" ");
        let short: String = text.chars().take(300).collect();
        if let Some(failure) = map_text(&text, Some(TextKind::Page)).filter(ours) {
            return Some(Failure { message: said(&short), ..failure });
        }
        if !short.is_empty() {
            return Some(Failure::terminal(FailureReason::Unknown, "form.rejected", said(&short)));
        }
    }
    None
}

/// Why an interface refused, though its status is a good one: `{"success":false,"message":"…"}` and its like.
pub fn refused_by_answer(answer: &str) -> Option<Failure> {
    let Ok(serde_json::Value::Object(answer)) = serde_json::from_str(answer) else { return None };
    let is = |key: &str, values: &[&str]| {
        answer.get(key).is_some_and(|value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_lowercase);
            values.contains(&text.as_str())
        })
    };
    let filled = |key: &str| {
        answer
            .get(key)
            .filter(|value| !matches!(value, serde_json::Value::Null | serde_json::Value::Bool(false)))
            .filter(|value| {
                *value != &serde_json::json!([]) && *value != &serde_json::json!({}) && *value != &serde_json::json!("")
            })
    };
    let refused = ["success", "ok", "valid"].iter().any(|key| is(key, &["false", "0", "no"]))
        || is("status", &["error", "fail", "failed", "failure", "rejected", "invalid"])
        || ["error", "errors"].iter().any(|key| filled(key).is_some());
    if !refused {
        return None;
    }
    let mut words = String::new();
    for key in ["message", "error", "errors", "detail", "msg", "data"] {
        if let Some(value) = filled(key) {
            gather_text(value, &mut words);
        }
    }
    let known = map_text(&words, Some(TextKind::Page));
    let words = if words.is_empty() { "no".to_owned() } else { words };
    Some(known.map_or_else(
        || Failure::terminal(FailureReason::Unknown, "form.rejected", said(&words)),
        |failure| Failure { message: said(&words), ..failure },
    ))
}

fn gather_text(value: &serde_json::Value, words: &mut String) {
    match value {
        serde_json::Value::String(text) if words.len() < LONGEST_MESSAGE => {
            if !words.is_empty() {
                words.push(' ');
            }
            words.extend(text.chars().take(200));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| gather_text(value, words)),
        serde_json::Value::Object(values) => values.values().for_each(|value| gather_text(value, words)),
        _ => {}
    }
}

/// The site's own words in a message.
pub fn said(words: &str) -> String {
    let words: String = words.chars().take(300).collect();
    format!("the site says: “{}”", words.trim())
}

/// Fields among `ours` (by selector) that the browser itself would not send, for a message.
pub fn invalid_fields(after: &Shown, ours: impl Fn(&str) -> bool) -> Option<String> {
    let fields: Vec<String> = after
        .invalid
        .iter()
        .filter(|(css, _)| ours(css))
        .take(4)
        .map(|(css, message)| format!("{css}: {message}"))
        .collect();
    (!fields.is_empty()).then(|| fields.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Shown {
        Shown { text: text.to_owned(), ..Shown::default() }
    }

    #[test]
    fn a_text_is_found_whatever_the_site_made_of_its_quotes_blanks_and_case() {
        let needle = Needle::new("It's \"good\" -- really...\n\nSecond   line & <b>bold</b>");
        assert_eq!(needle.count("x It’s “good” – really…\nSecond line & <b>bold</b> y"), 1);
        assert_eq!(needle.count("It's bad"), 0);
        assert_eq!(Needle::new("ok").count("look at the book"), 0, "whole words only");
        assert_eq!(Needle::new("ok").count("ok. OK!"), 2);
    }

    #[test]
    fn a_text_of_signs_alone_is_compared_as_it_is() {
        assert_eq!(Needle::new("😀 !").count("a 😀  ! b"), 1);
        assert_eq!(Needle::new("😀 !").count("a 😀 b"), 0);
    }

    #[test]
    fn an_interface_that_says_no_in_a_good_status_has_refused() {
        let spam = refused_by_answer(r#"{"success":false,"message":"Your comment was marked as spam."}"#).unwrap();
        assert_eq!(spam.code, "form.spam");
        let words = refused_by_answer(r#"{"errors":{"name":["Zxq vrb"]}}"#).unwrap();
        assert_eq!((words.code.as_ref(), words.message.contains("Zxq vrb")), ("form.rejected", true));
        for fine in [r#"{"success":true,"errors":[]}"#, r#"{"id":7,"error":null}"#, "<p>no</p>", "[1]"] {
            assert!(refused_by_answer(fine).is_none(), "{fine}");
        }
    }

    #[test]
    fn only_what_was_not_there_before_is_news() {
        let before = shown("Title\nPassword must have 8 characters\n");
        let after = Shown {
            notices: vec![("Name is taken".into(), "alert".into())],
            ..shown("Title\nPassword must have 8 characters\nName is taken\n")
        };
        assert_eq!(after.news(&before), ["Name is taken"]);
    }

    #[test]
    fn an_error_notice_in_an_unknown_language_is_a_refusal_in_its_own_words() {
        let before = shown("Title");
        let after = Shown { notices: vec![("Zxq vrb".into(), "form-error".into())], ..shown("Title\nZxq vrb") };
        let failure = refusal(&before, &after, false).unwrap();
        assert_eq!(failure.code, "form.rejected");
        assert!(failure.message.contains("Zxq vrb"));
        let praise = Shown { notices: vec![("Zxq vrb".into(), "form-success".into())], ..shown("Title\nZxq vrb") };
        assert!(refusal(&before, &praise, false).is_none());
    }
}
