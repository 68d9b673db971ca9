//! Looks words up in `dictionary.toml`: which meanings a text or an attribute has, and how much of it says so.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| {
    let file: File = toml::from_str(include_str!("dictionary.toml")).expect("the built-in dictionary is valid TOML");
    let mut meanings = BTreeMap::new();
    let (mut phrases, mut gaps, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (section, entries) in [
        ("role", file.role),
        ("kind", file.kind),
        ("sign", file.sign),
        ("overlay", file.overlay),
        ("button", file.button),
    ] {
        for (name, entry) in entries {
            let meaning = meanings.len();
            meanings.insert(format!("{section}.{name}"), meaning);
            let (gapped, plain): (Vec<&String>, Vec<&String>) = entry.texts.iter().partition(|text| text.contains('…'));
            phrases.extend(plain.into_iter().filter_map(|text| Phrase::new(meaning, text)));
            gaps.extend(gapped.into_iter().filter_map(|text| Gap::new(meaning, text)));
            names.extend(entry.names.iter().map(|name| Name::new(meaning, name)));
        }
    }
    let searched = |needles: Vec<&str>| AhoCorasick::new(needles).expect("the dictionary is small");
    Dictionary {
        find_phrases: searched(phrases.iter().map(|phrase| phrase.needle.as_str()).collect()),
        find_names: searched(names.iter().map(|name| name.spaced.as_str()).collect()),
        // A short name stands inside too many words: only blanks are sure not to be found where there are none.
        find_inside: searched(
            names.iter().map(|name| if name.letters >= 5 { name.squeezed.as_str() } else { " " }).collect(),
        ),
        meanings,
        phrases,
        gaps,
        names,
    }
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    role: BTreeMap<String, Entry>,
    kind: BTreeMap<String, Entry>,
    sign: BTreeMap<String, Entry>,
    overlay: BTreeMap<String, Entry>,
    button: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    texts: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
}

/// All meanings. Each text is gone through once for all phrases together.
pub struct Dictionary {
    /// By `section.name`: its place in what is found.
    meanings: BTreeMap<String, usize>,
    phrases: Vec<Phrase>,
    gaps: Vec<Gap>,
    names: Vec<Name>,
    find_phrases: AhoCorasick,
    find_names: AhoCorasick,
    find_inside: AhoCorasick,
}

struct Phrase {
    meaning: usize,
    /// Normalised, a blank before; a blank behind too unless the last word may go on. Without blanks in scripts that
    /// don't put any.
    needle: String,
    /// How specific it is; more in scripts that take fewer letters.
    letters: usize,
}

/// Two parts of a phrase with one or two words between them.
struct Gap {
    meaning: usize,
    before: String,
    after: String,
    letters: usize,
}

struct Name {
    meaning: usize,
    spaced: String,
    squeezed: String,
    letters: usize,
}

/// A text, made ready for looking up.
#[derive(Debug, Clone)]
pub struct Words {
    spaced: String,
    letters: usize,
    words: usize,
    /// Letters of the longest phrase of each meaning, once it was asked for.
    phrases: OnceLock<Vec<usize>>,
    /// The same of names, and whether whole words match.
    names: OnceLock<Vec<(usize, bool)>>,
}

/// Lower case, without accents, words separated by single blanks, a blank at both ends.
pub fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(' ');
    let mut unspaced = false;
    for c in text.nfkd() {
        // `您的Email地址` has three words.
        if c.is_alphanumeric() && is_unspaced(c) != unspaced {
            unspaced = !unspaced;
            if !out.ends_with(' ') {
                out.push(' ');
            }
        }
        if c.is_alphanumeric() || matches!(c, '×' | '✕' | '✖' | '%') {
            out.extend(c.to_lowercase());
        } else if !is_mark(c) && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    if !out.ends_with(' ') {
        out.push(' ');
    }
    out
}

/// Accents, and the vowel signs of scripts that write them as marks: dropped on both sides of every comparison.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{0300}'..='\u{036f}' | '\u{0591}'..='\u{05c7}' | '\u{064b}'..='\u{065f}' | '\u{3099}' | '\u{309a}'
        | '\u{0900}'..='\u{0903}' | '\u{093a}'..='\u{094f}' | '\u{0e31}' | '\u{0e34}'..='\u{0e3a}' | '\u{0e47}'..='\u{0e4e}')
}

/// The words of an identifier: `userEmail-2` is `user email 2`.
pub fn split_identifier(identifier: &str) -> String {
    let mut out = String::with_capacity(identifier.len() + 8);
    let mut previous = ' ';
    for c in identifier.chars() {
        let boundary = (c.is_uppercase() && previous.is_lowercase())
            || (c.is_ascii_digit() && previous.is_alphabetic())
            || (c.is_alphabetic() && previous.is_ascii_digit());
        if boundary {
            out.push(' ');
        }
        out.push(c);
        previous = c;
    }
    normalise(&out)
}

/// Scripts written without blanks between words.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x0e00..=0x0e7f | 0x1100..=0x11ff | 0x3040..=0x30ff | 0x3400..=0x9fff | 0xac00..=0xd7af)
}

impl Words {
    /// Of a text for people.
    pub fn of_text(text: &str) -> Words {
        Words::new(normalise(text))
    }

    /// Of an attribute's value.
    pub fn of_identifier(identifier: &str) -> Words {
        Words::new(split_identifier(identifier))
    }

    fn new(spaced: String) -> Words {
        let letters = spaced.chars().filter(|c| *c != ' ').count();
        let words = spaced.split_whitespace().count();
        Words { spaced, letters, words, phrases: OnceLock::new(), names: OnceLock::new() }
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.letters == 0
    }

    /// Number of words.
    pub fn count(&self) -> usize {
        self.words
    }

    /// How much of the text is the phrase of `letters` letters: 0 to 1.
    pub fn share(&self, letters: usize) -> f64 {
        if self.letters == 0 { 0.0 } else { (letters as f64 / self.letters as f64).min(1.0) }
    }
}

impl Phrase {
    /// None where nothing is left of the text.
    fn new(meaning: usize, text: &str) -> Option<Phrase> {
        let open = text.ends_with('*');
        let mut needle = normalise(text.trim_end_matches('*'));
        let letters = needle.chars().filter(|c| *c != ' ').count();
        let anywhere = needle.chars().any(is_unspaced);
        if anywhere {
            needle = needle.trim().to_owned();
        } else if open {
            needle.truncate(needle.trim_end().len());
        }
        let letters = if anywhere { letters * 3 } else { letters };
        (letters > 0).then_some(Phrase { meaning, needle, letters })
    }
}

impl Gap {
    /// None where there is no gap, or nothing on one side of it.
    fn new(meaning: usize, text: &str) -> Option<Gap> {
        let (before, after) = text.split_once('…')?;
        let (before, after) = (normalise(before), normalise(after));
        let letters = before.chars().chain(after.chars()).filter(|c| *c != ' ').count();
        (before.len() > 1 && after.len() > 1).then_some(Gap { meaning, before, after, letters })
    }

    fn is_in(&self, spaced: &str) -> bool {
        let mut starts = spaced.match_indices(&self.before);
        starts.any(|(at, _)| {
            // The blank behind the one part is the blank before the next word.
            let rest = &spaced[at + self.before.len() - 1..];
            rest.find(&self.after).is_some_and(|end| matches!(rest[..end].split_whitespace().count(), 1 | 2))
        })
    }
}

impl Name {
    fn new(meaning: usize, name: &str) -> Name {
        let spaced = normalise(name);
        let squeezed: String = spaced.split_whitespace().collect();
        let letters = squeezed.chars().count();
        Name { meaning, spaced, squeezed, letters }
    }
}

impl Dictionary {
    /// The dictionary that is built in.
    pub fn standard() -> &'static Dictionary {
        &DICTIONARY
    }

    /// Letters of the longest phrase of `meaning` (`section.name`) in a text; 0 where there is none.
    pub fn in_text(&self, meaning: &str, words: &Words) -> usize {
        if words.is_empty() {
            return 0;
        }
        self.meanings.get(meaning).map_or(0, |meaning| words.phrases.get_or_init(|| self.phrases_of(words))[*meaning])
    }

    /// The same of an identifier, and whether whole words match.
    pub fn in_name(&self, meaning: &str, words: &Words) -> (usize, bool) {
        if words.is_empty() {
            return (0, false);
        }
        let found = |meaning: &usize| words.names.get_or_init(|| self.names_of(words))[*meaning];
        self.meanings.get(meaning).map_or((0, false), found)
    }

    fn phrases_of(&self, words: &Words) -> Vec<usize> {
        let mut longest = vec![0; self.meanings.len()];
        for found in self.find_phrases.find_overlapping_iter(&words.spaced) {
            let phrase = &self.phrases[found.pattern().as_usize()];
            longest[phrase.meaning] = phrase.letters.max(longest[phrase.meaning]);
        }
        for gap in self.gaps.iter().filter(|gap| gap.is_in(&words.spaced)) {
            longest[gap.meaning] = gap.letters.max(longest[gap.meaning]);
        }
        longest
    }

    fn names_of(&self, words: &Words) -> Vec<(usize, bool)> {
        let mut longest = vec![(0, false); self.meanings.len()];
        let mut note = |found: aho_corasick::Match, whole: bool| {
            let name = &self.names[found.pattern().as_usize()];
            longest[name.meaning] = longest[name.meaning].max((name.letters, whole));
        };
        self.find_names.find_overlapping_iter(&words.spaced).for_each(|found| note(found, true));
        let squeezed: String = words.spaced.split_whitespace().collect();
        self.find_inside.find_overlapping_iter(&squeezed).for_each(|found| note(found, false));
        longest
    }

    /// Whether a text says `meaning`.
    pub fn says(&self, meaning: &str, text: &str) -> bool {
        self.in_text(meaning, &Words::of_text(text)) > 0
    }

    /// Whether a text says `meaning` and little else: for buttons.
    pub fn says_mostly(&self, meaning: &str, text: &str) -> bool {
        let words = Words::of_text(text);
        let letters = self.in_text(meaning, &words);
        letters > 0 && (words.share(letters) >= 0.5 || words.count() <= 4)
    }

    /// Whether an identifier has `meaning` in whole words.
    pub fn names(&self, meaning: &str, identifier: &str) -> bool {
        self.in_name(meaning, &Words::of_identifier(identifier)).0 > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_punctuation_do_not_matter() {
        assert_eq!(normalise("  E-Mail: Prénom*!"), " e mail prenom ");
        assert_eq!(split_identifier("userEmail-2[x]"), " user email 2 x ");
        assert!(Dictionary::standard().says("role.email", "Adresse e‑mail *"));
        assert!(Dictionary::standard().says("role.first_name", "PRÉNOM"));
        assert!(Dictionary::standard().says("role.author", "Ім'я"));
    }

    #[test]
    fn a_phrase_is_found_at_word_boundaries_only() {
        let dictionary = Dictionary::standard();
        assert!(!dictionary.says("role.author", "Surnames of the world"));
        assert!(dictionary.says("role.body", "Kommentare"), "an open phrase goes on");
        assert!(!dictionary.says("kind.search", "research"));
    }

    #[test]
    fn scripts_without_blanks_are_searched_anywhere() {
        let dictionary = Dictionary::standard();
        assert!(dictionary.says("role.email", "あなたのメールアドレスを入力"));
        assert!(dictionary.says("kind.comment", "提交评论吧"));
        assert!(dictionary.says("role.password", "새 비밀번호"));
    }

    #[test]
    fn a_long_name_is_found_inside_a_longer_word_and_a_short_one_is_not() {
        let dictionary = Dictionary::standard();
        assert!(dictionary.names("role.email", "txtEmailAddr"));
        assert!(dictionary.names("role.username", "newusername"));
        assert!(!dictionary.names("role.honeypot", "chpasswd"));
    }

    #[test]
    fn every_phrase_of_the_dictionary_finds_itself() {
        let dictionary = Dictionary::standard();
        for (name, meaning) in &dictionary.meanings {
            let own = dictionary.phrases.iter().filter(|phrase| phrase.meaning == *meaning);
            assert!(own.clone().count() > 0 || dictionary.names.iter().any(|one| one.meaning == *meaning), "{name}");
            for phrase in own {
                assert!(dictionary.in_text(name, &Words::of_text(&phrase.needle)) > 0, "{name}: {}", phrase.needle);
            }
        }
    }

    #[test]
    fn a_gap_stands_for_one_or_two_words() {
        let dictionary = Dictionary::standard();
        for heading in ["Create your Acme Account", "Create an Acme Cloud account"] {
            assert!(dictionary.says("kind.signup", heading), "{heading}");
        }
        assert!(!dictionary.says("kind.signup", "Create a list of people who own an account"));
    }

    #[test]
    fn the_longest_of_several_phrases_counts_though_they_overlap() {
        let words = Words::of_text("Confirm e-mail address");
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
        assert_eq!(Dictionary::standard().in_text("role.email_confirm", &words), letters("confirm e-mail"));
        assert_eq!(Dictionary::standard().in_text("role.email", &words), letters("mail address"));
    }
}
