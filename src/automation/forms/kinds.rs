//! What a form is for: facts become named evidence, evidence is weighed by `weights.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::description::{ButtonFacts, Description, FieldFacts, FormFacts};
use super::dictionary::{Dictionary, Words};
use super::fields::{Guess, Role};

/// What a form is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormKind {
    /// Leaves a comment.
    Comment,
    /// Creates an account.
    Signup,
    /// Enters an account.
    Login,
    /// Subscribes an address.
    Newsletter,
    /// Searches the site.
    Search,
    /// Sends a message to the site's people.
    Contact,
    /// Anything else.
    Other,
}

impl FormKind {
    /// All kinds.
    pub const ALL: [FormKind; 7] =
        [Self::Comment, Self::Signup, Self::Login, Self::Newsletter, Self::Search, Self::Contact, Self::Other];

    /// The name in data, records and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Comment => "comment",
            Self::Signup => "signup",
            Self::Login => "login",
            Self::Newsletter => "newsletter",
            Self::Search => "search",
            Self::Contact => "contact",
            Self::Other => "other",
        }
    }
}

/// The numbers of `weights.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Weights {
    pub source: BTreeMap<String, f64>,
    pub autocomplete: BTreeMap<String, Role>,
    kind: KindWeights,
    submit: BTreeMap<String, f64>,
}

/// What is true of a form, by name, and how much of it.
pub type Evidence = BTreeMap<String, f64>;

/// For each kind how much each piece of evidence speaks for it: the logit is the sum over what is true, and `bias`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct KindWeights(BTreeMap<FormKind, BTreeMap<String, f64>>);

impl KindWeights {
    /// The probability of each kind, in the order of [`FormKind::ALL`].
    fn judge(&self, evidence: &Evidence) -> [(FormKind, f64); 7] {
        let logits = FormKind::ALL.map(|kind| {
            let Some(table) = self.0.get(&kind) else { return (kind, 0.0) };
            let known = evidence.iter().filter_map(|(name, value)| Some(table.get(name)? * value));
            (kind, known.sum::<f64>() + table.get("bias").copied().unwrap_or(0.0))
        });
        let most = logits.iter().map(|(_, logit)| *logit).fold(f64::MIN, f64::max);
        let total: f64 = logits.iter().map(|(_, logit)| (logit - most).exp()).sum();
        logits.map(|(kind, logit)| (kind, (logit - most).exp() / total))
    }
}

impl Weights {
    pub(super) fn standard() -> &'static Weights {
        static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
            toml::from_str(include_str!("weights.toml")).expect("the built-in weights are valid TOML")
        });
        &WEIGHTS
    }

    pub(super) fn source(&self, name: &str) -> f64 {
        self.source.get(name).copied().unwrap_or(0.0)
    }

    fn submit(&self, name: &str) -> f64 {
        self.submit.get(name).copied().unwrap_or(0.0)
    }
}

/// The fields of one form, as far as they are known before its kind is.
pub(super) struct FormParts<'a> {
    pub page: &'a Description,
    pub form: &'a FormFacts,
    pub fields: Vec<&'a Guess<'a>>,
    pub buttons: Vec<&'a ButtonFacts>,
}

/// What is thought of a form.
pub(super) struct Judgement {
    pub kind: FormKind,
    /// 0 to 1.
    pub sure: f64,
    /// The evidence with its weight, heaviest first.
    pub reasons: Vec<String>,
    pub evidence: Evidence,
}

/// The kind of a form.
pub(super) fn judge(parts: &FormParts<'_>) -> Judgement {
    let weights = &Weights::standard().kind;
    let evidence = gather(parts);
    let judged = weights.judge(&evidence);
    let (kind, sure) = judged.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are seven kinds");
    let table = &weights.0[&kind];
    let mut reasons: Vec<(f64, &String)> =
        evidence.keys().filter_map(|name| table.get(name).map(|weight| (weight * evidence[name], name))).collect();
    reasons.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    let reasons = reasons.into_iter().take(8).map(|(weight, name)| format!("{name} {weight:+.1}")).collect();
    Judgement { kind, sure, reasons, evidence }
}

/// Which button sends the form, whose kind may not be known yet. One outside of it only where none inside will do: sites without `<form>`, or with one that
/// ends too early, put it right after.
pub(super) fn submit_button<'a>(parts: &FormParts<'a>, kind: Option<FormKind>) -> Option<&'a ButtonFacts> {
    let weights = Weights::standard();
    let best = |buttons: &[&'a ButtonFacts]| {
        let last = parts.fields.iter().filter(|f| f.usable).map(|f| f.facts.at).max().unwrap_or(0);
        let before = buttons.iter().filter(|button| button.at < last).count();
        let scored = buttons.iter().enumerate();
        let scored = scored.map(|(i, button)| (i, score(parts, kind, i.saturating_sub(before), button)));
        scored.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map(|(i, score)| (buttons[i], score))
    };
    let inside = best(&parts.buttons);
    let good_enough = inside.is_some_and(|(_, score)| score >= weights.submit("good_enough"));
    if !good_enough && let Some((button, score)) = best(&following(parts)) {
        let better = inside.is_none_or(|(_, inside)| score > inside);
        if better && score >= weights.submit("outside_threshold") {
            return Some(button);
        }
    }
    inside.filter(|(_, score)| *score > weights.submit("threshold")).map(|(button, _)| button)
}

/// Buttons of no form between this one's last field and the next form.
fn following<'a>(parts: &FormParts<'a>) -> Vec<&'a ButtonFacts> {
    let Some(last) = parts.fields.iter().map(|f| f.facts.at).max() else { return Vec::new() };
    // What has no button of its own is sent with this one.
    let sent_alone =
        |f: &&FieldFacts| f.form.is_some() && parts.page.buttons.iter().any(|button| button.form == f.form);
    let next = parts.page.fields.iter().filter(|f| f.at > last).filter(sent_alone).map(|f| f.at).min();
    let next = next.unwrap_or(u32::MAX);
    let loose = parts.page.buttons.iter().filter(|b| b.form.is_none() && b.at > last && b.at < next);
    loose.take(12).collect()
}

fn score(parts: &FormParts<'_>, kind: Option<FormKind>, position: usize, button: &ButtonFacts) -> f64 {
    let (weights, dictionary) = (Weights::standard(), Dictionary::standard());
    let text = if button.text.is_empty() { &button.label } else { &button.text };
    let names = format!("{} {} {}", button.id, button.name, button.class);
    let last_field = parts.fields.iter().filter(|f| f.usable).map(|f| f.facts.at).max();
    let mut score = 0.0;
    let mut add = |name: &str, holds: bool| {
        if holds {
            score += weights.submit(name);
        }
    };
    add("type_submit", button.kind == "submit");
    add("type_image", button.kind == "image");
    let own = kind.map(|kind| format!("kind.{}", kind.as_str()));
    let says_own = own.as_ref().is_some_and(|own| dictionary.says_mostly(own, text));
    add("own_kind", says_own || own.is_some_and(|own| dictionary.names(&own, &button.id)));
    let says_any = || PURPOSES.iter().any(|kind| dictionary.says_mostly(&format!("kind.{kind}"), text));
    add("submit_word", dictionary.says_mostly("sign.submit", text) || (kind.is_none() && says_any()));
    add("submit_name", dictionary.names("sign.submit", &names));
    // A form that is sent has another button, if any, to log in instead.
    let logs_in = kind.is_some_and(|kind| kind != FormKind::Login) && dictionary.says_mostly("kind.login", text);
    let says_no = dictionary.says_mostly("sign.not_submit", text) && !(kind == Some(FormKind::Login) && says_own);
    // A page that is one form has buttons for all that is in it.
    let aside = ["newsletter", "search"].into_iter().any(|other| {
        let meaning = format!("kind.{other}");
        kind.is_some_and(|kind| kind.as_str() != other) && dictionary.says_mostly(&meaning, text)
    });
    add("of_another_purpose", aside && !says_own && kind != Some(FormKind::Other));
    add("not_submit_word", says_no || (logs_in && !says_own) || button.kind == "reset");
    add("not_submit_name", dictionary.names("sign.not_submit", &names));
    // How it is dressed: as a link, or as the one that matters.
    add("looks_minor", dictionary.names("sign.looks_minor", &button.class));
    add("looks_main", dictionary.names("sign.looks_main", &button.class));
    let sends = |button: &&&ButtonFacts| matches!(button.kind.as_str(), "submit" | "image");
    let only = button.kind == "submit" && parts.form.is_form && parts.buttons.iter().filter(sends).count() == 1;
    add("only_submit", only);
    let after = last_field.is_some_and(|at| button.at > at);
    add("after_last_field", after);
    add("link", button.tag == "a");
    add("other_element", !matches!(button.tag.as_str(), "a" | "button" | "input"));
    add("no_text", text.is_empty() && button.kind != "image");
    add("long_text", Words::of_text(text).count() > 5);
    add("forgot", dictionary.says("sign.forgot", text) && !resets(parts));
    // Where the whole form is folded away, its buttons are too.
    let folded = parts.fields.iter().all(|field| !field.seen);
    add("hidden", !button.hidden.is_empty() && !folded);
    score + if after { weights.submit("per_button_after") * position as f64 } else { 0.0 }
}

/// Whether a form without a password is there to have a lost one back: the text over it says so.
fn resets(parts: &FormParts<'_>) -> bool {
    let dictionary = Dictionary::standard();
    let form = parts.form;
    let near = form.distance.is_some_and(|distance| distance <= 40);
    let over = form.headings.iter().chain(near.then_some(&form.before)).chain(&form.lead).chain([&parts.page.title]);
    let secret = |f: &&Guess<'_>| f.seen && f.facts.kind == "password";
    !parts.fields.iter().any(secret)
        && over.into_iter().any(|text| {
            let words = Words::of_text(text);
            words.count() <= 8 && dictionary.in_text("sign.reset", &words) > 0
        })
}

/// What a button may say that it is for.
const PURPOSES: [&str; 7] = ["comment", "signup", "login", "newsletter", "search", "contact", "other"];

fn gather(parts: &FormParts<'_>) -> Evidence {
    let mut evidence = Evidence::new();
    fields_evidence(parts, &mut evidence);
    words_evidence(parts, &mut evidence);
    evidence
}

fn fields_evidence(parts: &FormParts<'_>, evidence: &mut Evidence) {
    let dictionary = Dictionary::standard();
    let mut note = |name: &str, holds: bool| {
        if holds {
            evidence.insert(name.to_owned(), 1.0);
        }
    };
    // A form that is hidden as a whole is judged by all its fields, another one by those that a person sees.
    let seen: Vec<&&Guess<'_>> = if parts.fields.iter().any(|f| f.seen) {
        parts.fields.iter().filter(|f| f.seen).collect()
    } else {
        parts.fields.iter().filter(|f| f.role != Role::Honeypot).collect()
    };
    let count = |role: Role| seen.iter().filter(|f| f.role == role).count();
    let texts: Vec<_> = seen.iter().filter(|f| !matches!(f.facts.kind.as_str(), "checkbox" | "radio")).collect();
    let areas = seen.iter().filter(|f| f.is_area()).count();
    let secret = |f: &Guess<'_>| f.facts.kind == "password" || matches!(f.role, Role::Password | Role::PasswordConfirm);
    let passwords = seen.iter().filter(|f| secret(f)).count();
    let complete = |token: &str| seen.iter().any(|f| f.facts.autocomplete.split_whitespace().any(|t| t == token));

    note("textarea", areas > 0);
    note("textarea_only", areas == 1 && texts.len() == 1);
    note("no_textarea", areas == 0);
    note("password", passwords > 0);
    note("no_password", passwords == 0);
    note("password_two", passwords == 2);
    note("password_three", passwords > 2);
    note("later_password", passwords == 0 && parts.fields.iter().any(|f| !f.seen && f.facts.kind == "password"));
    let ruled = |f: &&&Guess<'_>| f.facts.kind == "password" && (f.facts.min.is_some() || !f.facts.pattern.is_empty());
    note("password_limits", seen.iter().any(ruled));
    note("new_password", complete("new-password"));
    note("current_password", complete("current-password"));
    let (email, username) = (count(Role::Email), count(Role::Username));
    note("email", email > 0);
    note("no_email", email == 0);
    note("username", username > 0);
    note("no_identity", email == 0 && username == 0 && passwords == 0 && count(Role::Phone) == 0);
    note("email_and_username", email > 0 && username > 0 && areas == 0);
    note("email_confirm", count(Role::EmailConfirm) > 0 || email > 1);
    note("author", count(Role::Author) + count(Role::FullName) > 0);
    note("website", count(Role::Website) > 0);
    note("person", count(Role::FirstName) + count(Role::LastName) + count(Role::FullName) > 0);
    note("username_token", complete("username"));
    let called = |f: &&&Guess<'_>| dictionary.in_name("role.username", &Words::of_identifier(&f.facts.name)).1;
    note("called_username", seen.iter().any(|f| f.role == Role::Email && called(f)));
    note("password_one", passwords == 1);
    note("first_last", count(Role::FirstName) > 0 && count(Role::LastName) > 0);
    for role in [Role::Phone, Role::Company, Role::Address, Role::Birthdate, Role::Country, Role::Consent] {
        note(role.as_str(), count(role) > 0);
    }
    note("newsletter_box", count(Role::NewsletterOptIn) > 0);
    note("remember", seen.iter().any(|f| f.facts.kind == "checkbox" && f.says("kind.login")));
    note("single_field", texts.len() == 1);
    note("single_email", texts.len() == 1 && email == 1);
    note("few", texts.len() <= 2);
    note("many", texts.len() >= 9);
    note("no_text_fields", texts.is_empty());
    note("type_search", seen.iter().any(|f| f.facts.kind == "search"));
    let in_name = |meaning: &str, f: &Guess<'_>| dictionary.names(meaning, &f.facts.name) || f.says(meaning);
    note("field:search", texts.len() <= 2 && texts.iter().any(|f| in_name("kind.search", f)));
    note("field:contact", texts.iter().any(|f| !f.is_area() && in_name("kind.contact", f)));
    // Who writes a letter chooses what it is about; who comments does not.
    let topics = |f: &&&&Guess<'_>| f.facts.is_list() && f.facts.option_count >= 4 && in_name("kind.contact", f);
    note("list:contact", texts.iter().any(topics));
    note(
        "card",
        texts.iter().any(|f| f.facts.autocomplete.contains("cc-") || dictionary.names("kind.other", &f.facts.name)),
    );
    note(
        "body:comment",
        seen.iter().any(|f| {
            f.is_area()
                && (f.says("kind.comment")
                    || dictionary.names("kind.comment", &f.facts.name)
                    || dictionary.names("kind.comment", &f.facts.id))
        }),
    );
}

fn words_evidence(parts: &FormParts<'_>, evidence: &mut Evidence) {
    let (dictionary, form, page) = (Dictionary::standard(), parts.form, parts.page);
    let identity = format!("{} {} {} {} {}", form.id, form.name, form.class, form.aria, path_of(&form.action));
    let identity = Words::of_identifier(&identity);
    let ancestry = Words::of_identifier(&form.ancestry);
    let near = form.distance.is_some_and(|distance| distance <= 40);
    let headings: Vec<Words> = form
        .headings
        .iter()
        .map(String::as_str)
        .chain(near.then_some(form.before.as_str()))
        .map(Words::of_text)
        .collect();
    let main = submit_button(parts, None);
    let is_main = |button: &ButtonFacts| main.is_some_and(|main| main.h == button.h && main.at == button.at);
    let words_on =
        |button: &ButtonFacts| Words::of_text(if button.text.is_empty() { &button.label } else { &button.text });
    let pressed: Vec<Words> = main.iter().map(|button| words_on(button)).collect();
    let beside = parts.buttons.iter().filter(|button| !is_main(button));
    let beside: Vec<Words> = beside
        .filter(|button| button.hidden.is_empty() || !form.hidden.is_empty())
        .take(40)
        .map(|button| words_on(button))
        .collect();
    // Of a later step.
    let undrawn = parts.buttons.iter().filter(|button| form.hidden.is_empty() && button.hidden == ["not_rendered"]);
    let undrawn: Vec<Words> = undrawn.take(20).map(|button| words_on(button)).collect();
    let ids: Vec<Words> =
        main.iter().map(|button| Words::of_identifier(&format!("{} {}", button.id, button.name))).collect();
    let lead: Vec<Words> = form.lead.iter().map(|text| Words::of_text(text)).collect();
    let title = Words::of_text(&page.title);
    let url = Words::of_identifier(&path_of(&page.url));
    let text = Words::of_text(&form.text);
    for kind in ["comment", "signup", "login", "newsletter", "search", "contact", "other", "submit"] {
        let meaning = if kind == "submit" { "sign.submit".to_owned() } else { format!("kind.{kind}") };
        let mut note = |place: &str, holds: bool| {
            if holds {
                evidence.insert(format!("{place}:{kind}"), 1.0);
            }
        };
        let speaks = |words: &Words| words.count() <= 8 && dictionary.in_text(&meaning, words) > 0;
        note("button", pressed.iter().any(speaks));
        note("beside", beside.iter().any(speaks));
        note("lead", lead.iter().any(|words| words.count() <= 14 && dictionary.in_text(&meaning, words) > 0));
        note("button_id", ids.iter().any(|words| dictionary.in_name(&meaning, words).0 > 0));
        note("heading", headings.iter().any(|words| words.count() <= 14 && dictionary.in_text(&meaning, words) > 0));
        let mostly = |words: &Words| {
            let letters = dictionary.in_text(&meaning, words);
            letters > 0 && words.count() <= 8 && words.share(letters) >= 0.6
        };
        note("says", headings.iter().chain(&lead).any(mostly));
        note("ident", dictionary.in_name(&meaning, &identity).0 > 0);
        note("ancestry", dictionary.in_name(&meaning, &ancestry).0 > 0);
        note("title", title.count() <= 14 && dictionary.in_text(&meaning, &title) > 0);
        note("url", dictionary.in_name(&meaning, &url).0 > 0);
        note("text", dictionary.in_text(&meaning, &text) > 0);
        // Who has lost a password is not sent elsewhere to log in.
        let leads = |link: &&String| dictionary.says_mostly(&meaning, link) && !dictionary.says("sign.forgot", link);
        note("links", form.links.iter().any(|link| leads(&link)));
        note("undrawn", undrawn.iter().any(speaks));
    }
    let mut note = |name: &str, holds: bool| {
        if holds {
            evidence.insert(name.to_owned(), 1.0);
        }
    };
    let says = |meaning: &str, words: &Words| dictionary.in_text(meaning, words) > 0;
    note("text:check_mail", says("sign.check_mail", &text));
    note("resets", resets(parts));
    note("button:change_password", pressed.iter().any(|words| says("sign.change_password", words)));
    note("text:terms", says("sign.terms", &text));
    note("text:password_rules", says("sign.password_rules", &text));
    // A page with few forms is about them.
    let about = page.forms.len() <= 4;
    let around: String = page.text.chars().take(3000).collect();
    let around = Words::of_text(if about { &around } else { "" });
    // `Don't have an account` is the opposite of what is part of it.
    let have = |text: &str| {
        text.split(['.', '?', '!', '\n', '。', '？', '؟', '।'])
            .any(|part| dictionary.says("sign.have_account", part) && !dictionary.says("sign.no_account", part))
    };
    for meaning in ["have_account", "no_account", "forgot", "change_password"] {
        let name = format!("sign.{meaning}");
        let over = lead.iter().any(|words| says(&name, words));
        let (mut here, mut about) = (says(&name, &text), over || says(&name, &around));
        if meaning == "have_account" {
            (here, about) =
                (here && have(&form.text), about && (have(&page.text) || form.lead.iter().any(|t| have(t))));
        }
        here = here || beside.iter().any(|words| says(&name, words));
        note(&format!("text:{meaning}"), here);
        note(&format!("page:{meaning}"), !here && about);
    }
    note("unsubscribe", says("sign.unsubscribe", &text) || lead.iter().any(|words| says("sign.unsubscribe", words)));
    let vouched = page.buttons.iter().filter(|button| button.hidden.is_empty()).take(60);
    note("sso", about && vouched.map(words_on).any(|words| words.count() <= 6 && says("sign.sso", &words)));
    let top: Vec<Words> = page.headings.iter().take(6).map(|heading| Words::of_text(&heading.text)).collect();
    for kind in ["comment", "signup", "login", "newsletter", "contact"] {
        let meaning = format!("kind.{kind}");
        note(&format!("page:{kind}"), about && top.iter().any(|words| words.count() <= 14 && says(&meaning, words)));
    }
    let asks = |f: &&Guess<'_>| f.facts.kind == "password" && f.says("sign.change_password");
    note("password:change", parts.fields.iter().any(asks));
    note("heading:change_password", headings.iter().any(|words| says("sign.change_password", words)));
    note("loose", !form.is_form);
    note("role_search", form.role == "search" || form.ancestry.split_whitespace().any(|word| word == "search"));
    note("method_get", form.is_form && form.method == "get");
    let both = |words: &Words| words.count() <= 14 && says("kind.signup", words) && says("kind.login", words);
    if says("sign.signup_or_login", &text) || headings.iter().chain(&lead).chain(&pressed).any(both) {
        evidence.insert("signup_or_login".to_owned(), 1.0);
    }
    if evidence.contains_key("single_email") {
        let beside = [
            "text:terms",
            "button:submit",
            "text:have_account",
            "text:no_account",
            "later_password",
            "page:have_account",
            "title:signup",
            "sso",
        ];
        for name in beside {
            if evidence.contains_key(name) {
                evidence.insert(format!("single_email+{name}"), 1.0);
            }
        }
        // The first step of a sign-up, if it is not news that one signs up for.
        let news =
            ["heading:newsletter", "text:newsletter", "button:newsletter", "ident:newsletter", "lead:newsletter"];
        if evidence.contains_key("heading:signup") && !news.iter().any(|name| evidence.contains_key(*name)) {
            evidence.insert("single_email+heading:signup".to_owned(), 1.0);
        }
    }
    let mut note = |name: &str, holds: bool| {
        if holds {
            evidence.insert(name.to_owned(), 1.0);
        }
    };
    note("file", form.has_file);
    note("article", page.kind == "article");
}

/// Path and query of a URL, or the text itself where it is none.
fn path_of(url: &str) -> String {
    url::Url::parse(url)
        .map(|url| format!("{} {}", url.path(), url.query().unwrap_or_default()))
        .unwrap_or_else(|_| url.to_owned())
}
