//! Fits the weights of the kinds of forms to a labelled corpus: a multinomial logistic regression that starts from the
//! weights as they are and is pulled back to them, so that what the corpus says nothing about stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::Result;
use pagehand::automation::forms::FormKind;

use super::corpus::Page;
use super::{Seen, half};

/// The weights as they are.
const WEIGHTS: &str = include_str!("../../src/automation/forms/weights.toml");
/// Kinds that name a page, the rarer ones first; places in [`FormKind::ALL`].
const NAMING: [usize; 4] = [0, 1, 2, 3];
/// Evidence on fewer pages than this keeps its weight.
const SUPPORT: usize = 4;
/// Steps of the descent.
const STEPS: i32 = 400;
/// So much counts a form whose kind nobody says, but we are sure of.
const UNLABELLED: f64 = 0.25;

/// One form of one page.
struct Sample {
    /// Index of its page.
    page: usize,
    /// What is true of it.
    evidence: BTreeMap<String, f64>,
    /// Kinds that it may be, as bits in the order of the tables.
    allowed: u32,
    /// How much it counts.
    weight: f64,
}

/// Weight of each piece of evidence, by kind.
pub type Tables = Vec<BTreeMap<String, f64>>;

/// The fitted tables.
fn fit(samples: &[&Sample], start: &Tables, pull: f64) -> Tables {
    let mut pages: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for sample in samples {
        for name in sample.evidence.keys() {
            pages.entry(name).or_default().insert(sample.page);
        }
    }
    let names: Vec<&str> = pages.iter().filter(|(_, on)| on.len() >= SUPPORT).map(|(name, _)| *name).collect();
    let index: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (*name, i)).collect();
    let kinds = start.len();
    let width = names.len() + 1;
    let begin: Vec<f64> = start
        .iter()
        .flat_map(|table| {
            let of = |name: &str| table.get(name).copied().unwrap_or(0.0);
            names.iter().map(move |name| of(name)).chain([of("bias")]).collect::<Vec<_>>()
        })
        .collect();
    // What rare evidence adds stays as it is.
    let fixed: Vec<Vec<f64>> = samples
        .iter()
        .map(|sample| {
            let rare = sample.evidence.iter().filter(|(name, _)| !index.contains_key(name.as_str()));
            let rare: Vec<(&String, f64)> = rare.map(|(name, value)| (name, *value)).collect();
            let sum = |table: &BTreeMap<String, f64>| rare.iter().map(|(n, v)| table.get(*n).unwrap_or(&0.0) * v).sum();
            start.iter().map(sum).collect()
        })
        .collect();
    let rows: Vec<Vec<(usize, f64)>> = samples
        .iter()
        .map(|sample| {
            let known = sample.evidence.iter().filter_map(|(name, value)| Some((*index.get(name.as_str())?, *value)));
            known.chain([(width - 1, 1.0)]).collect()
        })
        .collect();
    let mut weights = begin.clone();
    let (mut first, mut second) = (vec![0.0; weights.len()], vec![0.0; weights.len()]);
    for step in 1..=STEPS {
        let mut slope: Vec<f64> = weights.iter().zip(&begin).map(|(now, then)| pull * (now - then)).collect();
        for ((sample, row), fixed) in samples.iter().zip(&rows).zip(&fixed) {
            let logits: Vec<f64> = (0..kinds)
                .map(|kind| fixed[kind] + row.iter().map(|(i, v)| weights[kind * width + i] * v).sum::<f64>())
                .collect();
            let most = logits.iter().copied().fold(f64::MIN, f64::max);
            let shares: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
            let total: f64 = shares.iter().sum();
            let allowed: f64 = (0..kinds).filter(|k| sample.allowed >> k & 1 == 1).map(|k| shares[k]).sum();
            for kind in 0..kinds {
                let is = shares[kind] / total;
                let wanted = if sample.allowed >> kind & 1 == 1 { shares[kind] / allowed.max(1e-12) } else { 0.0 };
                let error = sample.weight * (is - wanted);
                if error.abs() > 1e-6 {
                    for (i, value) in row {
                        slope[kind * width + i] += error * value;
                    }
                }
            }
        }
        // Adam.
        let rate = 0.1 * (1.0 - f64::from(step) / f64::from(STEPS)).max(0.02);
        for i in 0..weights.len() {
            first[i] = 0.9 * first[i] + 0.1 * slope[i];
            second[i] = 0.999 * second[i] + 0.001 * slope[i] * slope[i];
            let (mean, spread) = (first[i] / (1.0 - 0.9_f64.powi(step)), second[i] / (1.0 - 0.999_f64.powi(step)));
            weights[i] -= rate * mean / (spread.sqrt() + 1e-8);
        }
    }
    let mut fitted = start.clone();
    for (kind, table) in fitted.iter_mut().enumerate() {
        for (i, name) in names.iter().copied().chain(["bias"]).enumerate() {
            let weight = (weights[kind * width + i] * 10.0).round() / 10.0;
            if weight.abs() < 0.15 && name != "bias" {
                table.remove(name);
            } else {
                table.insert(name.to_owned(), weight);
            }
        }
    }
    fitted
}

/// The probability of each kind.
fn judge(evidence: &BTreeMap<String, f64>, tables: &Tables) -> Vec<f64> {
    let logits: Vec<f64> = tables
        .iter()
        .map(|table| {
            let known = evidence.iter().filter_map(|(name, value)| Some(table.get(name)? * value));
            known.sum::<f64>() + table.get("bias").copied().unwrap_or(0.0)
        })
        .collect();
    let most = logits.iter().copied().fold(f64::MIN, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
    logits.iter().map(|logit| (logit - most).exp() / total).collect()
}

/// Fits on each half and tells how the other half comes out, then fits on all.
pub fn report(pages: &[Page], seen: &[Result<Seen>], pull: f64) -> Tables {
    let start = start();
    let samples: Vec<Sample> = pages
        .iter()
        .zip(seen)
        .enumerate()
        .flat_map(|(i, (page, seen))| match seen {
            Ok(seen) => samples_of(i, page, seen, &start),
            Err(_) => Vec::new(),
        })
        .collect();
    let of_half = |which: usize| samples.iter().filter(|sample| half(&pages[sample.page]) == which).collect::<Vec<_>>();
    let fitted = [fit(&of_half(0), &start, pull), fit(&of_half(1), &start, pull)];
    let all = fit(&samples.iter().collect::<Vec<_>>(), &start, pull);
    for which in 0..2 {
        println!("half {}, weights as they are:", which + 1);
        tell(pages, seen, which, &start);
        println!("half {}, weights fitted on the other half:", which + 1);
        tell(pages, seen, which, &fitted[1 - which]);
        println!("half {}, weights fitted on everything:", which + 1);
        tell(pages, seen, which, &all);
    }
    all
}

fn start() -> Tables {
    let weights: toml::Table = toml::from_str(WEIGHTS).expect("the built-in weights are valid TOML");
    let of = |kind: FormKind| {
        let table = weights["kind"][kind.as_str()].as_table().expect("a table");
        table.iter().map(|(name, weight)| (name.clone(), weight.as_float().expect("a number"))).collect()
    };
    FormKind::ALL.into_iter().map(of).collect()
}

/// A page's label is its form's: of those with labelled fields the one that is most like it. The kinds of the others are
/// what we are sure of; and none of them may outdo the label.
fn samples_of(page: usize, facts: &Page, seen: &Seen, start: &Tables) -> Vec<Sample> {
    let Some(kind) = facts.kind.as_deref() else { return Vec::new() };
    let bit = |kind: FormKind| FormKind::ALL.iter().position(|other| *other == kind).map_or(0, |at| 1_u32 << at);
    let any = (1_u32 << FormKind::ALL.len()) - 1;
    let label = FormKind::ALL.into_iter().find(|other| other.as_str() == kind);
    let wanted = match label {
        Some(FormKind::Other) => bit(FormKind::Other) | bit(FormKind::Search) | bit(FormKind::Contact),
        Some(kind) => bit(kind),
        None => 0,
    };
    let not = match kind {
        "comment" => 0,
        "none" | "login" | "signup" => bit(FormKind::Comment),
        _ => bit(FormKind::Comment) | bit(FormKind::Signup) | bit(FormKind::Login),
    };
    let labelled =
        |at: &usize| facts.fields.iter().any(|(label, place)| place == at && (kind != "comment" || label == "body"));
    let likeness = |form: &super::Found| {
        let place = label.and_then(|kind| FormKind::ALL.iter().position(|other| *other == kind))?;
        let own = form.fields.iter().any(|(_, at)| labelled(at))
            || (facts.fields.is_empty() && form.submit.is_some_and(|at| facts.submit.contains(&at)));
        own.then(|| judge(&form.evidence, start)[place])
    };
    let best = seen.forms.iter().enumerate().filter_map(|(i, form)| Some((i, likeness(form)?)));
    let best = best.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i);
    seen.forms
        .iter()
        .enumerate()
        .map(|(i, form)| {
            let shares = judge(&form.evidence, start);
            let (top, sure) =
                shares.iter().enumerate().fold((0, 0.0), |most, (k, s)| if *s > most.1 { (k, *s) } else { most });
            let (allowed, weight) = if Some(i) == best {
                (wanted, 1.0)
            } else if sure > 0.9 && not >> top & 1 == 0 {
                (1 << top, UNLABELLED)
            } else {
                (any & !not, 2.0 * UNLABELLED)
            };
            Sample { page, evidence: form.evidence.clone(), allowed, weight }
        })
        .collect()
}

/// Prints how well the pages of a half are named with these weights.
fn tell(pages: &[Page], seen: &[Result<Seen>], which: usize, tables: &Tables) {
    let mut counts: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for (page, seen) in pages.iter().zip(seen).filter(|(page, _)| half(page) == which) {
        let (Some(kind), Ok(seen)) = (&page.kind, seen) else { continue };
        let got = name(seen, tables);
        if *kind == got {
            counts.entry(kind.clone()).or_default()[0] += 1;
        } else {
            counts.entry(kind.clone()).or_default()[2] += 1;
            counts.entry(got.to_owned()).or_default()[1] += 1;
        }
    }
    for (kind, [right, wrong, missed]) in counts {
        let share = |of: usize| if of == 0 { 0.0 } else { 100.0 * right as f64 / of as f64 };
        println!("  {kind:<12} precision {:>5.1}  recall {:>5.1}", share(right + wrong), share(right + missed));
    }
}

/// The rule of `automation::inspect`.
fn name(seen: &Seen, tables: &Tables) -> &'static str {
    let named = seen.forms.iter().filter_map(|form| {
        let shares = judge(&form.evidence, tables);
        let (kind, sure) = shares.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        let place = NAMING.iter().position(|named| *named == kind)?;
        Some(((sure * 4.0).round() as i64, std::cmp::Reverse((place, form.index)), kind))
    });
    match named.max() {
        Some((.., kind)) => FormKind::ALL[kind].as_str(),
        None if seen.forms.is_empty() => "none",
        None => "other",
    }
}

/// The `[kind.…]` tables of `weights.toml`.
pub fn to_toml(tables: &Tables) -> String {
    let mut out = String::new();
    for (kind, table) in FormKind::ALL.iter().zip(tables) {
        let _ = writeln!(out, "[kind.{}]", kind.as_str());
        let mut rows: Vec<_> = table.iter().collect();
        rows.sort_by(|a, b| {
            (a.0 != "bias").cmp(&(b.0 != "bias")).then(b.1.abs().total_cmp(&a.1.abs())).then(a.0.cmp(b.0))
        });
        for (name, weight) in rows {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let _ =
                if plain { writeln!(out, "{name} = {weight:.1}") } else { writeln!(out, "\"{name}\" = {weight:.1}") };
        }
        out.push('\n');
    }
    out
}
