//! The site's rules for passwords, read before anything is sent. The password is the task's: where it breaks a rule, that
//! is said, and no other is made up.

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::json;

use super::super::forms::Field;
use super::super::look::FrameView;
use super::super::{Context, failed};
use crate::failure::{Failure, FailureReason};

/// What a page says about one password field.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rules {
    min: Option<usize>,
    max: Option<usize>,
    pattern: String,
    /// Whether the password fits the pattern; true where there is none.
    fits: bool,
    title: String,
    passwordrules: String,
    /// Texts beside the field.
    hints: Vec<String>,
}

/// Holds the password against the rules that the page states.
///
/// # Errors
/// `registration.password`, naming the rule that it breaks.
pub(super) async fn check(ctx: &Context, frame: &FrameView, field: &Field, password: &str) -> Result<(), Failure> {
    const RULES: &str = r"(ph, n, password) => {
      const el = ph.get(n);
      if (!el) return {};
      let fits = true;
      if (el.pattern) try { fits = new RegExp(`^(?:${el.pattern})$`, 'v').test(password); } catch { /* the browser ignores such a pattern, too */ }
      const ids = `${el.getAttribute('aria-describedby') ?? ''} ${el.getAttribute('aria-errormessage') ?? ''}`.split(/\s+/).filter(Boolean);
      const texts = ids.map(id => document.getElementById(id)?.innerText);
      for (let node = el.parentElement, depth = 0; node && depth < 3 && !node.matches('form,body,main'); node = node.parentElement, depth++) if (node.querySelectorAll('input:not([type=hidden])').length <= 2) texts.push(node.innerText);
      for (const near of [el.nextElementSibling, el.closest('p,div,label')?.nextElementSibling]) if (near && !near.querySelector('input') && !near.matches('input')) texts.push(near.innerText);
      return { min: el.minLength > 0 ? el.minLength : null, max: el.maxLength > 0 ? el.maxLength : null, pattern: el.pattern, fits, title: el.title, passwordrules: el.getAttribute('passwordrules') ?? '',
        hints: texts.filter(Boolean).flatMap(text => text.split('\n')).map(text => text.trim().slice(0, 300).toWellFormed()).filter(text => text.length > 4) };
    }";
    let args = [json!(field.handle), json!(password)];
    let rules: Rules = ctx.tab.call(&frame.frame.id, RULES, &args, ctx.limits.look).await.map_err(failed)?;
    let Some(rule) = broken(&rules, password) else { return Ok(()) };
    let message = format!(
        "the site's rule for passwords, {rule}, is not met by the task's password; give the task one that does"
    );
    Err(Failure::terminal(FailureReason::RegistrationFailed, "registration.password", message))
}

/// The first rule that `password` breaks, for a message that does not give the password away.
fn broken(rules: &Rules, password: &str) -> Option<String> {
    let length = password.encode_utf16().count();
    if let Some(min) = rules.min.filter(|min| length < *min) {
        return Some(format!("at least {min} characters (minlength)"));
    }
    if let Some(max) = rules.max.filter(|max| length > *max) {
        return Some(format!("at most {max} characters (maxlength)"));
    }
    if !rules.fits && !rules.pattern.is_empty() {
        let said = if rules.title.is_empty() { String::new() } else { format!(": “{}”", rules.title) };
        return Some(format!("the pattern {}{said}", rules.pattern));
    }
    of_passwordrules(&rules.passwordrules, password)
        .or_else(|| rules.hints.iter().find(|hint| breaks_hint(hint, password)).map(|hint| format!("“{hint}”")))
}

/// The rules in the syntax of the `passwordrules` attribute.
fn of_passwordrules(rules: &str, password: &str) -> Option<String> {
    let length = password.chars().count();
    for rule in rules.split(';').map(str::trim).filter(|rule| !rule.is_empty()) {
        let (name, value) = rule.split_once(':').map(|(name, value)| (name.trim().to_lowercase(), value.trim()))?;
        let number = value.parse::<usize>().ok();
        let met = match (name.as_str(), number) {
            ("minlength", Some(min)) => length >= min,
            ("maxlength", Some(max)) => length <= max,
            ("max-consecutive", Some(most)) => longest_run(password) <= most,
            // One of the classes that are named together must occur.
            ("required", _) => classes(value).iter().any(|class| password.chars().any(|c| class.has(c))),
            _ => true,
        };
        if !met {
            return Some(format!("“{rule}” (passwordrules)"));
        }
    }
    None
}

enum Class {
    Upper,
    Lower,
    Digit,
    Special,
    Any,
    Of(String),
}

impl Class {
    fn has(&self, c: char) -> bool {
        match self {
            Self::Upper => c.is_uppercase(),
            Self::Lower => c.is_lowercase(),
            Self::Digit => c.is_ascii_digit(),
            Self::Special => !c.is_alphanumeric(),
            Self::Any => true,
            Self::Of(set) => set.contains(c),
        }
    }
}

fn classes(value: &str) -> Vec<Class> {
    let mut out = Vec::new();
    let mut rest = value;
    // A set of its own in brackets may contain commas.
    if let (Some(open), Some(close)) = (value.find('['), value.rfind(']'))
        && open < close
    {
        out.push(Class::Of(value[open + 1..close].to_owned()));
        rest = &value[..open];
    }
    for name in rest.split(',').map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()) {
        out.push(match name.as_str() {
            "upper" => Class::Upper,
            "lower" => Class::Lower,
            "digit" => Class::Digit,
            "special" => Class::Special,
            _ => Class::Any,
        });
    }
    out
}

fn longest_run(password: &str) -> usize {
    let (mut longest, mut run, mut last) = (0, 0, None);
    for c in password.chars() {
        run = if last == Some(c) { run + 1 } else { 1 };
        last = Some(c);
        longest = longest.max(run);
    }
    longest
}

static AT_LEAST: LazyLock<Regex> = LazyLock::new(|| {
    let words = "at least|minimum(?: of)?|min\\.?|no less than|or more|mindestens|wenigstens|au moins|minimum de|al menos|mínimo(?: de)?|como mínimo|almeno|minimo|pelo menos|no mínimo|minstens|minimaal|ten minste|co najmniej|minimum|не менее|не менш|минимум|мінімум|щонайменше|en az|alespoň|nejméně|minst";
    let signs = "characters?|chars?|letters|zeichen|caractères|caracteres|caratteri|tekens|znak\\w*|символ\\w*|знак\\w*|karakter|tecken";
    Regex::new(&format!(r"(?i)(?:{words})\s*(?<a>\d{{1,3}})\s*(?:{signs})|\b(?<b>\d{{1,3}})\+?\s*(?:or more |oder mehr |ou plus )?(?:{signs})\s*(?:or more|minimum|min\b|oder mehr|ou plus|o más|o más)|\b(?<c>\d{{1,3}})\s*(?:-|–|to|bis|à|a)\s*\d{{1,3}}\s*(?:{signs})|(?<d>\d{{1,3}})(?:文字以上|个字符以上|位以上|자 이상)"))
        .expect("the pattern is a constant")
});
static WANTED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\b(?:at least|must|contain|contains|include|one|required|need|mindestens|enthalten|ein(?:e|en)?|au moins|contenir|une?|al menos|contener|una?|almeno|deve|contenere|pelo menos|conter|minstens|bevatten|co najmniej|zawierać|содержать|хотя бы)\b").expect("the pattern is a constant")
});
static NAMED: LazyLock<[(Regex, Class); 4]> = LazyLock::new(|| {
    let of = |words: &str| Regex::new(&format!("(?i)(?:{words})")).expect("the pattern is a constant");
    [
        (
            of(
                "upper-?\\s?case|capital letter|großbuchstabe|majuscule|mayúscula|maiuscol|maiúscul|hoofdletter|wielk\\w+ liter|заглавн|прописн|büyük harf|大文字|大写",
            ),
            Class::Upper,
        ),
        (
            of(
                "lower-?\\s?case|kleinbuchstabe|minuscule|minúscula|minuscol|minúscul|kleine letter|mał\\w+ liter|строчн|küçük harf|小文字|小写",
            ),
            Class::Lower,
        ),
        (
            of(
                "\\bnumber|\\bdigit|\\bnumeral|ziffer|\\bzahl|chiffre|número|dígito|\\bnumero|\\bcifra|cijfer|cyfr|цифр|rakam|数字",
            ),
            Class::Digit,
        ),
        (
            of(
                "special char|symbol|punctuation|sonderzeichen|caractère spécial|carácter especial|carattere speciale|caractere especial|speciaal teken|znak specjaln|спецсимвол|специальн|özel karakter|記号|特殊",
            ),
            Class::Special,
        ),
    ]
});
static EITHER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\b(?:or|oder|ou|o|of|lub|или|не должн\w*|no|not|optional|recommended|should|avoid|without|nicht|kein\w*|pas|sin|tip|hint|e\.g\.)\b").expect("the pattern is a constant")
});

/// Whether a sentence beside the field states a rule that `password` breaks. What only advises, or leaves a choice, is none.
fn breaks_hint(hint: &str, password: &str) -> bool {
    if hint.chars().count() > 200 {
        return false;
    }
    let length = password.chars().count();
    let least = AT_LEAST.captures(hint).and_then(|found| {
        ["a", "b", "c", "d"]
            .into_iter()
            .find_map(|name| found.name(name))
            .and_then(|number| number.as_str().parse::<usize>().ok())
    });
    if least.is_some_and(|least| length < least && least <= 64) {
        return true;
    }
    let states = WANTED.is_match(hint) && !EITHER.is_match(hint);
    states && NAMED.iter().any(|(words, class)| words.is_match(hint) && !password.chars().any(|c| class.has(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_attributes_are_held_against_the_password() {
        let rules = |passwordrules: &str| of_passwordrules(passwordrules, "abcdef12");
        assert_eq!(rules("minlength: 8; required: lower; required: digit;"), None);
        assert!(rules("minlength: 12").is_some_and(|rule| rule.contains("minlength: 12")));
        assert!(rules("required: upper").is_some());
        assert_eq!(rules("required: upper, digit"), None, "one of the named is enough");
        assert!(rules("required: [-().&@?'#,/\"+]").is_some());
        assert!(of_passwordrules("max-consecutive: 2", "aaab").is_some());
        let short = Rules { min: Some(10), fits: true, ..Rules::default() };
        assert_eq!(broken(&short, "abc").as_deref(), Some("at least 10 characters (minlength)"));
    }

    #[test]
    fn rules_in_words_are_understood_in_several_languages_and_advice_is_none() {
        for hint in [
            "Use at least 12 characters",
            "Must contain an uppercase letter and a number",
            "Mindestens 12 Zeichen",
            "Au moins 12 caractères",
            "Al menos 12 caracteres",
            "Минимум 12 символов",
            "12 characters or more",
            "12-64 characters",
            "12文字以上",
        ] {
            assert!(breaks_hint(hint, "abcdefgh"), "{hint}");
            assert!(!breaks_hint(hint, "Abcdefgh12345"), "{hint}");
        }
        for hint in [
            "Password",
            "You should use a number",
            "A number or a symbol must be used",
            "Your password can't be a number only",
        ] {
            assert!(!breaks_hint(hint, "abcdefgh!"), "{hint}");
        }
    }
}
