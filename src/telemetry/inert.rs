//! Makes captured markup safe to open from disk.
//!
//! The web API serves a capture with a sandboxing header; a file that somebody opens from disk has no header. Without
//! a policy its scripts would run, its images and style sheets would be fetched (which tells the site that, when and
//! from where the evidence was looked at), and it could lead the reader somewhere else. So the file itself begins with
//! a policy, right after the doctype and before anything of the page. A policy in a `<meta>` does not stop everything;
//! what it does not stop is renamed in the markup:
//!
//! * `http-equiv` becomes `data-http-equiv` wherever it stands: a `refresh` navigates, whatever the policy. The name of
//!   an attribute can't be written with character references, so nothing slips by.
//! * `<link …` becomes `<meta data-was-link …`: `preconnect` and `dns-prefetch` are under no policy. Both elements are
//!   void and allowed in the head, so the tree around them stays what it was.
//! * `<iframe …`, `<frame …`, `<embed …`, `<object …` get an empty source as their first attribute, and the first of two
//!   equal attributes counts: Chrome opens a connection for a frame even where the policy then refuses the request.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

const POLICY: &str = concat!(
    r#"<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'none'; "#,
    r#"img-src data:; style-src 'unsafe-inline' data:; font-src data:; base-uri 'none'; form-action 'none'">"#,
    r#"<meta charset="utf-8"><meta name="referrer" content="no-referrer">"#,
    r#"<meta http-equiv="x-dns-prefetch-control" content="off">"#,
    "\n"
);

static DOCTYPE: LazyLock<Regex> = LazyLock::new(|| constant(r"(?i)^[ \t\r\n\f]*<!doctype[^>]*>"));
static RENAMED: LazyLock<Regex> =
    LazyLock::new(|| constant(r"(?i)http-equiv|<(link|iframe|frame|embed|object)([\s/>])"));

fn constant(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns of this file are constants, and the tests compile each")
}

/// `html` as it may be opened from disk: the doctype, if any, and the policy; then the page, disarmed.
pub(super) fn inert(html: &str) -> (String, Cow<'_, str>) {
    let html = html.trim_start_matches('\u{feff}');
    // Nothing but white space may stand before the doctype: a comment there could end elsewhere than it seems to.
    let (doctype, rest) = html.split_at(DOCTYPE.find(html).map_or(0, |found| found.end()));
    let rest = RENAMED.replace_all(rest, |found: &Captures<'_>| {
        let Some(tag) = found.get(1) else { return "data-http-equiv".to_owned() };
        let (tag, end) = (tag.as_str(), &found[2]);
        match tag.to_ascii_lowercase().as_str() {
            "link" => format!("<meta data-was-link{end}"),
            "object" => format!(r#"<{tag} data=""{end}"#),
            "iframe" => format!(r#"<{tag} sandbox="" src="about:blank" srcdoc=""{end}"#),
            _ => format!(r#"<{tag} src="about:blank"{end}"#),
        }
    });
    (format!("{}{POLICY}", doctype.trim_start()), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(html: &str) -> String {
        let (head, rest) = inert(html);
        head + &rest
    }

    #[test]
    fn the_policy_stands_after_the_doctype_and_before_the_page() {
        let page = whole("\u{feff}\n<!DOCTYPE html>\n<html><script>1</script>");
        assert!(page.starts_with("<!DOCTYPE html><meta http-equiv=\"Content-Security-Policy\""), "{page}");
        assert!(page.ends_with("\n<html><script>1</script>"), "{page}");
        for hostile in ["<!--><script>1</script>--><!doctype html>", "<script>1</script>", "<!doctype", ""] {
            assert!(whole(hostile).starts_with("<meta http-equiv=\"Content-Security-Policy\""), "{hostile}");
        }
    }

    #[test]
    fn what_no_policy_stops_is_renamed() {
        let page = whole(concat!(
            r#"<META HTTP-EQUIV=refresh content="0;url=//evil"><LINK rel=preconnect href=//evil>"#,
            r#"<iframe src=//evil></iframe><object/data=//evil></object><embed src=//evil><linker>"#
        ));
        let (_, page) = page.split_once('\n').unwrap();
        assert_eq!(
            page,
            concat!(
                r#"<META data-http-equiv=refresh content="0;url=//evil"><meta data-was-link rel=preconnect href=//evil>"#,
                r#"<iframe sandbox="" src="about:blank" srcdoc="" src=//evil></iframe>"#,
                r#"<object data=""/data=//evil></object><embed src="about:blank" src=//evil><linker>"#
            )
        );
    }
}
