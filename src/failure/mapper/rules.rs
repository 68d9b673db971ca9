//! Lists of patterns, read from a file that is part of the program: which code a text has.
//!
//! Hundreds of expressions over each sentence of a page would be slow, as one set or one by one. So each pattern's
//! literal pieces, one of which every match must contain, go into one Aho-Corasick automaton; a text is read by that
//! once, and only patterns with a piece in it are tried, and compiled only then. Linear in the text either way.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use aho_corasick::AhoCorasick;
use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};

use super::codes::{self, Class};

/// The patterns of one file, in its order.
pub(super) struct Rules {
    entries: Vec<Entry>,
    pieces: AhoCorasick,
    /// Which entries each piece belongs to.
    owners: Vec<Vec<usize>>,
    /// Entries without a piece, always tried.
    always: Vec<usize>,
}

struct Entry {
    class: &'static Class,
    pattern: &'static str,
    compiled: OnceLock<Regex>,
}

/// What a text was found to be.
pub(super) struct Hit {
    pub(super) class: &'static Class,
    /// Place of the pattern in the file: the smaller, the more it says.
    pub(super) rank: usize,
    /// Byte at which the wording begins.
    pub(super) start: usize,
}

impl Rules {
    /// Reads `[code]`, `LABEL: REGEX` and `#` lines. The file is compiled in, so a fault in it is a fault of the
    /// program: it panics, and the tests find it.
    pub(super) fn parse(source: &'static str) -> Rules {
        Self::parse_labelled(source, None)
    }

    /// As [`Rules::parse`], of the lines with this label only.
    pub(super) fn parse_labelled(source: &'static str, only: Option<&str>) -> Rules {
        let mut entries = Vec::new();
        let mut class = None;
        for line in source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(code) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                class = Some(codes::class(code).unwrap_or_else(|| panic!("no class for the code `{code}`")));
            } else {
                let (label, pattern) = line.split_once(": ").unwrap_or_else(|| panic!("no label in `{line}`"));
                if only.is_none_or(|only| only == label) {
                    let class = class.expect("a code stands above the first pattern");
                    entries.push(Entry { class, pattern, compiled: OnceLock::new() });
                }
            }
        }
        Self::index(entries)
    }

    fn index(entries: Vec<Entry>) -> Rules {
        let (mut pieces, mut owners, mut always) = (Vec::<String>::new(), Vec::<Vec<usize>>::new(), Vec::new());
        for (at, entry) in entries.iter().enumerate() {
            let hir = regex_syntax::parse(entry.pattern).unwrap_or_else(|error| panic!("{error}"));
            match required(&hir) {
                Some(set) => {
                    for piece in set {
                        match pieces.iter().position(|known| *known == piece) {
                            Some(known) => owners[known].push(at),
                            None => {
                                pieces.push(piece);
                                owners.push(vec![at]);
                            }
                        }
                    }
                }
                None => always.push(at),
            }
        }
        let pieces = AhoCorasick::new(&pieces).expect("some thousand short words fit an automaton");
        Rules { entries, pieces, owners, always }
    }

    /// The first pattern, in the order of the file, that matches `text`.
    pub(super) fn first(&self, text: &str) -> Option<Hit> {
        let mut candidates: BTreeSet<usize> = self.always.iter().copied().collect();
        for found in self.pieces.find_overlapping_iter(text) {
            candidates.extend(&self.owners[found.pattern()]);
        }
        candidates.into_iter().find_map(|rank| {
            let entry = &self.entries[rank];
            let found = entry.regex().find(text)?;
            Some(Hit { class: entry.class, rank, start: found.start() })
        })
    }

    /// Compiles every pattern, for the test that they all can be.
    #[cfg(test)]
    pub(super) fn compile_all(&self) {
        assert!(self.entries.iter().map(Entry::regex).count() > 0);
    }
}

impl Entry {
    fn regex(&self) -> &Regex {
        self.compiled.get_or_init(|| {
            Regex::new(self.pattern).unwrap_or_else(|error| panic!("a pattern of the program is wrong: {error}"))
        })
    }
}

/// Pieces of text of which every match of `hir` contains at least one; None if there are none worth looking for.
fn required(hir: &Hir) -> Option<BTreeSet<String>> {
    /// Alternatives beyond which a set of pieces is no longer a filter.
    const MAX_PIECES: usize = 200;
    match hir.kind() {
        HirKind::Literal(literal) => {
            let piece = String::from_utf8(literal.0.to_vec()).ok()?;
            (piece.len() >= 2).then(|| BTreeSet::from([piece]))
        }
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        // Whichever part is rarest: the one whose shortest piece is longest.
        HirKind::Concat(parts) => parts.iter().filter_map(required).max_by_key(shortest),
        HirKind::Alternation(parts) => {
            let mut all = BTreeSet::new();
            for part in parts {
                all.extend(required(part)?);
            }
            (all.len() <= MAX_PIECES).then_some(all)
        }
        _ => None,
    }
}

fn shortest(set: &BTreeSet<String>) -> usize {
    set.iter().map(String::len).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pattern: &str) -> Option<Vec<String>> {
        required(&regex_syntax::parse(pattern).expect("a pattern")).map(|set| set.into_iter().collect())
    }

    #[test]
    fn the_pieces_of_a_pattern_are_in_every_match() {
        assert_eq!(pieces("^(foo|barn) ?(is )?closed"), Some(vec!["closed".to_owned()]));
        assert_eq!(pieces("(foo|barn).*[ab]"), Some(vec!["barn".to_owned(), "foo".to_owned()]));
        assert_eq!(pieces("(foo|b?)x*"), None);
    }

    #[test]
    fn a_pattern_without_a_piece_is_still_tried() {
        let rules = Rules::parse("[net.dns]\nany: ^[0-9]+$\n[net.tls]\nany: tls");
        assert_eq!(rules.first("12").map(|hit| hit.class.code), Some("net.dns"));
        assert_eq!(rules.first("a tls b").map(|hit| (hit.class.code, hit.start)), Some(("net.tls", 2)));
        assert!(rules.first("none").is_none());
    }
}
