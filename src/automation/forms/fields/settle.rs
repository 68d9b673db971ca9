//! What the fields of a form say of each other: its kind and the company a field is in decide between roles.

use super::super::dictionary::{Dictionary, Words};
use super::super::kinds::FormKind;
use super::{Guess, Role, declared};

/// What the fields of a form say of each other, whatever its kind.
pub(in crate::automation::forms) fn compare(fields: &mut [Guess<'_>]) {
    one_digit_each(fields);
    card_codes(fields);
    parts_of_a_date(fields);
}

/// Settles the roles of a form's fields among themselves, now that its kind is known.
pub(in crate::automation::forms) fn settle(fields: &mut [Guess<'_>], kind: FormKind) {
    // Nobody leaves it to the guest whether an account has a name.
    let optional = |f: &Guess<'_>| {
        let mut texts = f.facts.labels.iter().map(|label| &label.text).chain([&f.facts.placeholder, &f.facts.aria]);
        texts.any(|text| Dictionary::standard().says("sign.optional", text))
    };
    for field in fields.iter_mut().filter(|f| f.role == Role::Username && optional(f)) {
        field.role = Role::Other;
    }
    let alone = |fields: &[Guess<'_>], role: Role| !fields.iter().any(|f| f.usable && f.role == role);
    if matches!(kind, FormKind::Login | FormKind::Signup) {
        one_of_two(fields, kind);
    }
    parts_of_a_name(fields);
    name_beside_family_name(fields);
    match kind {
        FormKind::Comment | FormKind::Contact => {
            one_body(fields);
            if alone(fields, Role::Author) {
                let named = [Role::FullName, Role::Username, Role::FirstName];
                let splits = !alone(fields, Role::FirstName) && !alone(fields, Role::LastName);
                let found = fields.iter().position(|f| f.usable && named.contains(&f.role));
                if let (Some(i), false) = (found, splits) {
                    fields[i].role = Role::Author;
                }
            }
            if kind == FormKind::Contact && alone(fields, Role::FullName) {
                // A letter has no author's name that others see.
                for field in fields.iter_mut().filter(|f| f.role == Role::Author) {
                    field.role = Role::FullName;
                }
            }
        }
        FormKind::Signup | FormKind::Other => {
            // Whatever the browser is told to keep it as: the new account's address.
            if alone(fields, Role::Email)
                && let Some(field) =
                    fields.iter_mut().find(|f| f.usable && f.role == Role::Username && f.facts.kind == "email")
            {
                field.role = Role::Email;
            }
            if kind == FormKind::Signup {
                accounts_address(fields);
            } else {
                // The number of an account with a bank, and the like.
                let number = |f: &&mut Guess<'_>| {
                    f.role == Role::Username && f.scores.get(&Role::Other).is_some_and(|other| *other > f.score * 0.5)
                };
                fields.iter_mut().filter(number).for_each(|field| field.role = Role::Other);
            }
            // Where no account is made, nobody makes up a name.
            let named = alone(fields, Role::FullName) || kind == FormKind::Other;
            let new_name = if named { Role::FullName } else { Role::Username };
            if kind == FormKind::Signup {
                name_alone(fields);
                date_in_parts(fields);
                date_in_closed_lists(fields);
            }
            if kind == FormKind::Signup {
                optional_nickname(fields);
            }
            let nickname = |f: &Guess<'_>| kind == FormKind::Signup && f.says("sign.nickname");
            if alone(fields, Role::Username)
                && let Some(field) = fields.iter_mut().find(|f| f.usable && f.role == Role::Author && nickname(f))
            {
                field.role = Role::Username;
            }
            // Beside the name one logs in with, a name that others see stays what it is.
            for field in fields.iter_mut().filter(|f| f.role == Role::Author && !nickname(f)) {
                // `name` alone says little: what else is said decides.
                let says = |role: &Role| field.scores.get(role).copied().unwrap_or(0.0);
                let other = [Role::Username, Role::FirstName, Role::LastName];
                let best = other.into_iter().max_by(|a, b| says(a).total_cmp(&says(b)));
                field.role = best.filter(|role| says(role) > field.score * 0.5).unwrap_or(new_name);
            }
        }
        FormKind::Login => {
            name_before_password(fields);
            for field in fields.iter_mut().filter(|f| f.role == Role::Author) {
                field.role = Role::Username;
            }
            // Whatever it looks like: it is the name one logs in with.
            if alone(fields, Role::Username)
                && let Some(field) = fields.iter_mut().find(|f| f.usable && f.role == Role::Email)
            {
                field.role = Role::Username;
            }
        }
        FormKind::Newsletter | FormKind::Search => {
            for field in fields.iter_mut().filter(|f| f.role == Role::Author) {
                field.role = Role::FullName;
            }
        }
    }
    if !matches!(kind, FormKind::Other | FormKind::Contact) {
        mail_addresses(fields);
    }
    twice(fields, Role::Password, Role::PasswordConfirm);
    twice(fields, Role::Email, Role::EmailConfirm);
    keep_best(fields);
    unmask(fields);
}

/// Of two lines with nothing but `or` between them one is enough: the one that a task has something for, else the first. The
/// other stays empty.
fn one_of_two(fields: &mut [Guess<'_>], kind: FormKind) {
    let dictionary = Dictionary::standard();
    let line = |f: &Guess<'_>| {
        f.usable && f.facts.tag == "input" && !matches!(f.facts.kind.as_str(), "password" | "checkbox" | "radio")
    };
    let or = |f: &Guess<'_>| {
        let texts = f.facts.between.iter().map(|text| Words::of_text(text));
        texts.into_iter().any(|words| words.share(dictionary.in_text("sign.or", &words)) > 0.9)
    };
    // How sure it is that a task has something for it.
    let known = |f: &Guess<'_>| match f.role {
        Role::Email => 2,
        Role::Phone => 0,
        _ => 1,
    };
    for at in 1..fields.len() {
        let (one, other) = (&fields[at - 1], &fields[at]);
        if line(one) && line(other) && or(other) {
            let (taken, empty) = if known(other) > known(one) { (at, at - 1) } else { (at - 1, at) };
            fields[empty].role = Role::Other;
            fields[empty].scores.clear();
            if kind == FormKind::Login && fields[taken].role == Role::Other {
                fields[taken].role = Role::Username;
            }
        }
    }
}

/// Two lines side by side that are named for a name alike: the word right before each, or in it, says which part of it is
/// wanted.
fn parts_of_a_name(fields: &mut [Guess<'_>]) {
    let dictionary = Dictionary::standard();
    let line = |f: &Guess<'_>| {
        f.usable
            && f.facts.tag == "input"
            && matches!(f.role, Role::Author | Role::FullName | Role::FirstName | Role::LastName)
    };
    let is = |word: &str, role: &str| {
        let words = Words::of_text(word);
        words.share(dictionary.in_text(role, &words)) > 0.9
    };
    let told = |f: &Guess<'_>, role: &str| {
        let before = f.facts.labels.iter().find(|label| label.via == "before");
        let word = before.and_then(|label| label.text.split_whitespace().last()).unwrap_or_default();
        is(word, role) || is(&f.facts.placeholder, role)
    };
    let (given, family) = ("role.first_name", "role.last_name");
    for at in 1..fields.len() {
        let (one, other) = (&fields[at - 1], &fields[at]);
        if !line(one) || !line(other) || (one.role != other.role && one.role != Role::LastName) {
            continue;
        }
        if told(one, family) && told(other, given) {
            (fields[at - 1].role, fields[at].role) = (Role::LastName, Role::FirstName);
            return;
        }
        if told(one, given) && told(other, family) {
            (fields[at - 1].role, fields[at].role) = (Role::FirstName, Role::LastName);
            return;
        }
    }
}

/// `Name` right beside the family name is the given name.
fn name_beside_family_name(fields: &mut [Guess<'_>]) {
    let has = |role: Role| fields.iter().any(|f| f.usable && f.role == role);
    let family = fields.iter().position(|f| f.usable && f.role == Role::LastName);
    let Some(family) = family.filter(|_| !has(Role::FirstName) && !has(Role::FullName)) else { return };
    let plain = |f: &Guess<'_>| {
        f.usable && f.role == Role::Author && !f.scores.contains_key(&Role::FullName) && !f.says("sign.nickname")
    };
    let beside = [family.checked_sub(1), Some(family + 1)].into_iter().flatten();
    if let Some(at) = beside.into_iter().find(|at| fields.get(*at).is_some_and(plain)) {
        fields[at].role = Role::FirstName;
    }
}

/// What may be the given name as well as any name, where nobody asks for a family name.
fn name_alone(fields: &mut [Guess<'_>]) {
    if fields.iter().any(|f| f.role == Role::LastName) {
        return;
    }
    let says = |f: &Guess<'_>, role: Role| f.scores.get(&role).copied().unwrap_or(0.0);
    for field in fields.iter_mut().filter(|f| matches!(f.role, Role::FirstName | Role::Author)) {
        if says(field, Role::Author) >= says(field, Role::FirstName) * 0.8 {
            field.role = Role::Author;
            field.scores.remove(&Role::FirstName);
        }
    }
}

/// A name for others to see that is not insisted on, where the form says what is: it stays empty.
fn optional_nickname(fields: &mut [Guess<'_>]) {
    let insists = fields.iter().filter(|f| f.usable && f.facts.required).count() >= 2;
    let optional = |f: &Guess<'_>| f.usable && f.role == Role::Author && f.says("sign.nickname") && !f.facts.required;
    // A star or a word beside it says the same to a person.
    let starred = |f: &Guess<'_>| f.facts.labels.iter().any(|label| label.text.contains('*'));
    for field in fields.iter_mut().filter(|f| insists && optional(f) && !starred(f)) {
        field.role = Role::Other;
    }
}

/// A list of months beside one of days is a date, and so is the line for a year that follows.
fn date_in_parts(fields: &mut [Guess<'_>]) {
    let list = |f: &Guess<'_>, entries: std::ops::RangeInclusive<u32>| {
        f.usable && f.facts.is_list() && entries.contains(&f.facts.option_count)
    };
    // What says that it is something else is no part of it.
    let known = |f: &Guess<'_>| match f.role {
        Role::Birthdate => true,
        Role::Other => !f.scores.contains_key(&Role::Other),
        _ => false,
    };
    for at in 1..fields.len() {
        let (one, other) = (&fields[at - 1], &fields[at]);
        let pair = (list(one, 12..=13) && list(other, 31..=32)) || (list(one, 31..=32) && list(other, 12..=13));
        if !pair || !known(one) || !known(other) {
            continue;
        }
        let year = |f: &Guess<'_>| f.usable && f.facts.tag == "input" && known(f) && f.facts.max == Some(4);
        let end = at + 1 + usize::from(fields.get(at + 1).is_some_and(year));
        fields[at - 1..end].iter_mut().for_each(|field| field.role = Role::Birthdate);
        return;
    }
}

/// Drawn lists side by side that are called year, month and day, in whatever order: what they offer is not in the document
/// until they are opened.
fn date_in_closed_lists(fields: &mut [Guess<'_>]) {
    let closed = |f: &Guess<'_>| {
        f.usable
            && f.facts.tag == "listbox"
            && f.facts.option_count == 0
            && matches!(f.role, Role::Other | Role::Birthdate)
    };
    let parts = ["sign.year", "sign.month", "sign.day"];
    for at in 2..fields.len() {
        let three = &fields[at - 2..=at];
        let all = parts.iter().all(|part| three.iter().any(|f| f.says(part)));
        if all && three.iter().all(closed) {
            fields[at - 2..=at].iter_mut().for_each(|field| field.role = Role::Birthdate);
            return;
        }
    }
}

/// A sign-up has an address to write to; and whoever gives away addresses of their own asks for a name, not a street.
fn accounts_address(fields: &mut [Guess<'_>]) {
    let score = |field: &Guess<'_>, role: Role| field.scores.get(&role).copied().unwrap_or(0.0);
    let has = |fields: &[Guess<'_>], role: Role| fields.iter().any(|f| f.usable && f.role == role);
    if !has(fields, Role::Email)
        && let Some(field) =
            fields.iter_mut().find(|f| f.usable && f.role == Role::Username && score(f, Role::Email) > f.score * 0.5)
    {
        field.role = Role::Email;
    }
    if !has(fields, Role::Username)
        && !has(fields, Role::PostalCode)
        && let Some(field) =
            fields.iter_mut().find(|f| f.usable && f.role == Role::Address && score(f, Role::Username) > f.score * 0.4)
    {
        field.role = Role::Username;
    }
}

/// Of a log-in's lines the one before the password is the name one logs in with, whatever the site calls it.
fn name_before_password(fields: &mut [Guess<'_>]) {
    let known = |f: &Guess<'_>| matches!(f.role, Role::Username | Role::Email);
    let line = |f: &Guess<'_>| {
        f.usable
            && f.facts.tag == "input"
            && matches!(f.facts.kind.as_str(), "text" | "tel" | "number" | "search" | "email" | "")
    };
    let Some(password) = fields.iter().position(|f| f.usable && f.role == Role::Password) else { return };
    if fields.iter().any(|f| f.usable && known(f)) {
        return;
    }
    let optional = |f: &Guess<'_>| f.says("sign.optional");
    if let Some(field) = fields[..password].iter_mut().rev().find(|f| line(f) && !optional(f)) {
        let told = matches!(field.role, Role::Captcha | Role::OneTimeCode);
        if !told {
            field.role = Role::Username;
        }
    }
}

/// `Address` alone, on a field that is named for mail: no street.
fn mail_addresses(fields: &mut [Guess<'_>]) {
    for field in fields.iter_mut().filter(|f| f.role == Role::Address) {
        let score = |role: Role| field.scores.get(&role).copied().unwrap_or(0.0);
        if score(Role::Email) > field.score * 0.4 {
            field.role = Role::Email;
        }
    }
}

/// Four or more lines of one character each, side by side, are one code.
fn one_digit_each(fields: &mut [Guess<'_>]) {
    let digit = |f: &Guess<'_>| {
        let named = f.scores.contains_key(&Role::OneTimeCode) && f.facts.kind != "password";
        f.role != Role::Honeypot && f.facts.tag == "input" && (f.facts.max == Some(1) || named)
    };
    if fields.iter().filter(|f| digit(f)).count() >= 4 {
        for field in fields.iter_mut().filter(|f| digit(f)) {
            field.role = Role::OneTimeCode;
        }
    }
}

/// Beside a card's number the security code is the card's.
fn card_codes(fields: &mut [Guess<'_>]) {
    let dictionary = Dictionary::standard();
    let card = fields.iter().any(|f| {
        f.facts.autocomplete.contains("cc-")
            || dictionary.names("sign.card", &f.facts.name)
            || dictionary.names("sign.card", &f.facts.id)
            || f.says("sign.card")
    });
    for field in fields.iter_mut().filter(|f| card && f.role == Role::OneTimeCode) {
        field.role = Role::Other;
    }
}

/// Lists of days, months and years without a name: two or more of them in a form are a date.
fn parts_of_a_date(fields: &mut [Guess<'_>]) {
    let part = |f: &Guess<'_>| {
        let numbers: Vec<u32> = f.facts.options.iter().filter_map(|option| option.trim().parse().ok()).collect();
        let years = numbers.iter().filter(|n| (1900..2100).contains(*n)).count();
        let days = (31..=32).contains(&f.facts.option_count) && numbers.len() >= 8;
        let months = (12..=13).contains(&f.facts.option_count);
        match f.facts.is_list() {
            true if years >= 8 && f.facts.option_count >= 50 => 3,
            true if days => 2,
            true if months => 1,
            _ => 0,
        }
    };
    let found: Vec<u8> = fields.iter().map(part).collect();
    let has = |what: u8| found.contains(&what);
    // A card has a month and few years.
    if has(3) && (has(1) || has(2)) {
        for (field, part) in fields.iter_mut().zip(found) {
            // What says that it is something else is no part of it.
            if part > 0 && field.role == Role::Other && !field.scores.contains_key(&Role::Other) {
                field.role = Role::Birthdate;
            }
        }
    }
}

/// Of several text areas that a person sees, the one with most speaking for it holds the text.
fn one_body(fields: &mut [Guess<'_>]) {
    let best = (0..fields.len()).filter(|&i| fields[i].is_area() && fields[i].usable).max_by(|&a, &b| {
        let (x, y) = (&fields[a], &fields[b]);
        let score = |f: &Guess<'_>| f.scores.get(&Role::Body).copied().unwrap_or(0.0);
        score(x).total_cmp(&score(y)).then(y.facts.at.cmp(&x.facts.at))
    });
    for (i, field) in fields.iter_mut().enumerate() {
        if Some(i) == best {
            field.role = Role::Body;
        } else if field.role == Role::Body && best.is_some() && field.usable {
            field.role = Role::Other;
        }
    }
}

/// Of two fields with one role the second repeats the first, where a role for that exists.
fn twice(fields: &mut [Guess<'_>], first: Role, second: Role) {
    let found: Vec<usize> = (0..fields.len()).filter(|&i| fields[i].usable && fields[i].role == first).collect();
    let repeated = fields.iter().any(|f| f.usable && f.role == second);
    match (found.as_slice(), repeated) {
        // What stands far off is for something else: the newsletter at the end of a page that is one form.
        ([one, again], false) if again - one <= 2 || first == Role::Password => fields[*again].role = second,
        ([], true) => {
            if let Some(field) = fields.iter_mut().find(|f| f.usable && f.role == second) {
                field.role = first;
            }
        }
        _ => {}
    }
}

/// A role that only one field can have goes to the one with most speaking for it.
fn keep_best(fields: &mut [Guess<'_>]) {
    for role in [Role::Author, Role::Website, Role::Username] {
        let mut same: Vec<usize> = (0..fields.len()).filter(|&i| fields[i].usable && fields[i].role == role).collect();
        same.sort_by(|&a, &b| fields[b].score.total_cmp(&fields[a].score).then(a.cmp(&b)));
        for &i in same.iter().skip(1) {
            let score = |role: Role| fields[i].scores.get(&role).copied().unwrap_or(0.0);
            let named = role == Role::Username && score(Role::Author).max(score(Role::FullName)) >= 3.0;
            let free = !fields.iter().any(|f| f.usable && f.role == Role::FullName);
            fields[i].role = if named && free { Role::FullName } else { Role::Other };
        }
    }
}

/// A field that is not rendered and asks for what another asks for in sight of all is a trap, not a later step.
fn unmask(fields: &mut [Guess<'_>]) {
    let asked: Vec<Role> = fields.iter().filter(|f| f.usable).map(|f| f.role).collect();
    // Long forms have steps and variants.
    if fields.iter().filter(|f| f.facts.kind != "checkbox").count() > 12 {
        return;
    }
    let imitated = |role: Role| {
        matches!(
            role,
            Role::Author
                | Role::Email
                | Role::Website
                | Role::Body
                | Role::Username
                | Role::FirstName
                | Role::LastName
                | Role::FullName
                | Role::Phone
                | Role::Company
        )
    };
    for field in fields.iter_mut().filter(|f| !f.seen && !declared(f.facts)) {
        if imitated(field.role) && asked.contains(&field.role) {
            field.role = Role::Honeypot;
        }
    }
}
