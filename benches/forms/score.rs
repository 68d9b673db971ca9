//! Counts what is right and what is wrong.

use std::collections::{BTreeMap, HashMap};

use pagehand::automation::forms::Role;

use super::corpus::{Page, accepted};
use super::{Found, Seen};

/// Roles that nobody types anything into, or that are filled with what a mail says.
const NOT_FILLED: [Role; 6] =
    [Role::Other, Role::Honeypot, Role::Captcha, Role::Consent, Role::NewsletterOptIn, Role::OneTimeCode];

/// Right, named wrongly, missed.
#[derive(Default, Clone, Copy)]
struct Count {
    right: usize,
    wrong: usize,
    missed: usize,
}

/// The sums over a corpus.
#[derive(Default)]
pub struct Score {
    pages: usize,
    kinds: BTreeMap<String, Count>,
    labels: BTreeMap<String, Count>,
    submit: Count,
    filled: usize,
    codes: usize,
}

impl Count {
    fn line(self) -> String {
        let share = |part: usize, of: usize| if of == 0 { 0.0 } else { 100.0 * part as f64 / of as f64 };
        let (precision, recall) =
            (share(self.right, self.right + self.wrong), share(self.right, self.right + self.missed));
        let f1 = share(2 * self.right, 2 * self.right + self.wrong + self.missed);
        format!(
            "precision {precision:>5.1}  recall {recall:>5.1}  F1 {f1:>5.1}   ({} right, {} wrong, {} missed)",
            self.right, self.wrong, self.missed
        )
    }
}

impl Score {
    /// Adds one page.
    pub fn add(&mut self, page: &Page, seen: &Seen, verbose: bool) {
        self.pages += 1;
        let mut wrong = Vec::new();
        if let Some(kind) = &page.kind {
            if *kind == seen.kind {
                self.kinds.entry(kind.clone()).or_default().right += 1;
            } else {
                self.kinds.entry(kind.clone()).or_default().missed += 1;
                self.kinds.entry(seen.kind.clone()).or_default().wrong += 1;
                wrong.push(format!("is {kind}, taken for {}", seen.kind));
            }
        }
        let told: HashMap<usize, Role> =
            seen.forms.iter().flat_map(|form| form.fields.iter().map(|(role, at)| (*at, *role))).collect();
        for (label, at) in &page.fields {
            let count = self.labels.entry(label.clone()).or_default();
            let (role, fine) = (told.get(at), accepted(label));
            match role {
                Some(role) if fine.contains(role) => count.right += 1,
                None if fine.contains(&Role::Other) => count.right += 1,
                Some(role) => {
                    count.wrong += 1;
                    wrong.push(format!("element {at} is {label}, taken for {}", role.as_str()));
                }
                None => {
                    count.missed += 1;
                    wrong.push(format!("element {at} is {label}, not listed"));
                }
            }
        }
        for at in &page.not_fields {
            match told.get(at) {
                Some(Role::OneTimeCode) => self.codes += 1,
                Some(role) if !NOT_FILLED.contains(role) => {
                    self.filled += 1;
                    wrong.push(format!("element {at} is for nobody to fill, taken for {}", role.as_str()));
                }
                _ => {}
            }
        }
        self.buttons(page, &seen.forms, &mut wrong);
        if verbose && !wrong.is_empty() {
            println!("{}\n  {}", page.name, wrong.join("\n  "));
        }
    }

    fn buttons(&mut self, page: &Page, forms: &[Found], wrong: &mut Vec<String>) {
        if page.submit.is_empty() {
            return;
        }
        let named: Vec<usize> = forms.iter().filter_map(|form| form.submit).collect();
        if named.iter().any(|at| page.submit.contains(at)) {
            self.submit.right += 1;
        } else {
            self.submit.missed += 1;
            self.submit.wrong += usize::from(!named.is_empty());
            wrong.push(format!("sent by {:?}, taken for {named:?}", page.submit));
        }
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{} pages\nkind of the page", self.pages);
        for (kind, count) in &self.kinds {
            println!("  {kind:<12} {}", count.line());
        }
        let total = self.labels.values().fold(Count::default(), |sum, count| Count {
            right: sum.right + count.right,
            wrong: sum.wrong + count.wrong,
            missed: sum.missed + count.missed,
        });
        let labelled = total.right + total.wrong + total.missed;
        let share = |part: usize, of: usize| if of == 0 { 0.0 } else { 100.0 * part as f64 / of as f64 };
        println!(
            "labelled fields: {:.1} % wrong ({} of {labelled})",
            share(labelled - total.right, labelled),
            labelled - total.right
        );
        for (label, count) in self.labels.iter().filter(|(_, count)| count.wrong + count.missed > 0) {
            println!(
                "  {label:<22} {} right, {} taken for something else, {} not listed",
                count.right, count.wrong, count.missed
            );
        }
        println!(
            "fields for nobody to fill: {} taken for one that is filled, {} for a code from a mail",
            self.filled, self.codes
        );
        let submit = self.submit;
        println!(
            "button that sends: {:.1} % wrong, {:.1} % missed ({} pages)",
            share(submit.wrong, submit.right + submit.wrong),
            share(submit.missed, submit.right + submit.missed),
            submit.right + submit.missed
        );
    }
}
