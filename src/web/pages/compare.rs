//! Two attempts side by side: which steps they share, where the time went, and whether they failed alike.

use std::collections::{HashMap, HashSet};

use maud::{Markup, html};

use super::{badge, format, verdict};
use crate::queue::{Attempt, Step};
use crate::record::REPORTING_STEPS;

/// A step in one or both of two attempts.
#[derive(Debug, PartialEq)]
struct Pair<'a> {
    left: Option<&'a Step>,
    right: Option<&'a Step>,
}

impl Pair<'_> {
    /// A moment that both attempts passed alike says nothing of either, nor does what both report of the same failure.
    fn says_something(&self) -> bool {
        let (Some(left), Some(right)) = (self.left, self.right) else { return true };
        let timed = left.duration_ms >= 0.05 || right.duration_ms >= 0.05;
        let reports = REPORTING_STEPS.contains(&left.name.as_str()) && left.name != REPORTING_STEPS[0];
        left.status != right.status || timed || (left.status != "ok" && !reports)
    }
}

/// The two attempts as a table, with a sentence on what differs before it.
pub fn table(left: &Attempt, right: &Attempt) -> Markup {
    let head = |attempt: &Attempt| html! { "Attempt " (attempt.retry_count + 1) " " (badge(&attempt.status)) };
    html! {
        section class="attempt compare" id="compare" aria-label="Comparison" {
            h2 { "Attempts " (left.retry_count + 1) " and " (right.retry_count + 1) " compared" }
            p { (in_a_sentence(left, right)) }
            div class="scroll" tabindex="0" role="region" aria-label="Steps of both attempts" {
                table class="plain" {
                    thead {
                        tr {
                            th scope="col" { "Step" }
                            th scope="col" class="num" { (head(left)) }
                            th scope="col" class="num" { (head(right)) }
                            th scope="col" class="num" { "Change" }
                        }
                    }
                    tbody {
                        @let pairs = paired(&left.steps, &right.steps);
                        @for (n, pair) in pairs.iter().enumerate().filter(|(_, pair)| pair.says_something()) { (row(pair, &pairs[..n])) }
                    }
                }
            }
        }
    }
}

/// One pair; an error that a pair before it told is not told again.
fn row(pair: &Pair, before: &[Pair]) -> Markup {
    type Side = for<'a> fn(&Pair<'a>) -> Option<&'a Step>;
    let new_error = |side: Side| {
        let told =
            |error: &String| before.iter().any(|pair| side(pair).and_then(|step| step.error.as_ref()) == Some(error));
        side(pair).and_then(|step| step.error.clone()).filter(|error| !told(error))
    };
    let name = pair.left.or(pair.right).map_or("", |step| step.name.as_str());
    let differs = pair.left.map(|step| &step.status) != pair.right.map(|step| &step.status);
    let cell = |side: Side| {
        let step = side(pair);
        html! {
            td class={ "num" @if step.is_some_and(|step| step.status == "failed") { " bad" } } {
                @match step {
                    None => { span class="quiet" { "not reached" } }
                    Some(step) => {
                        @if step.status == "failed" { span class="mark" aria-label="failed" { "✕" } " " }
                        (format::took(step.duration_ms))
                    }
                }
            }
        }
    };
    html! {
        tr class=[differs.then_some("differs")] {
            td { (format::name(name)) }
            (cell(|pair| pair.left))
            (cell(|pair| pair.right))
            td class="num" {
                @if let (Some(left), Some(right)) = (pair.left, pair.right) && (left.duration_ms - right.duration_ms).abs() >= 1.0 {
                    (if right.duration_ms > left.duration_ms { "+" } else { "−" })
                    (format::duration((right.duration_ms - left.duration_ms).abs()))
                }
            }
        }
        // Below the row and not in it: a sentence would push the numbers apart.
        @let said = [("the earlier", new_error(|pair| pair.left)), ("the later", new_error(|pair| pair.right))];
        @if said.iter().any(|(_, error)| error.is_some()) {
            tr class="said" {
                td colspan="4" {
                    @for (attempt, error) in &said {
                        @if let Some(error) = error { p { span class="quiet" { (attempt) ": " } span class="error" { (error) } } }
                    }
                }
            }
        }
    }
}

fn in_a_sentence(left: &Attempt, right: &Attempt) -> String {
    match (verdict::place_of_failure(left), verdict::place_of_failure(right)) {
        (None, None) => "Neither failed.".to_owned(),
        (Some(step), None) => format!("Only the first failed, at {}.", step.name),
        (None, Some(step)) => format!("Only the second failed, at {}.", step.name),
        (Some(one), Some(other)) if one.name != other.name => {
            format!("They failed at different steps: {} and {}.", one.name, other.name)
        }
        (Some(one), Some(other)) if one.error == other.error => {
            format!("Both failed at {}, with the same error.", one.name)
        }
        (Some(one), Some(_)) => format!("Both failed at {}, with different errors.", one.name),
    }
}

/// Steps of the same name belong together, the first with the first; in the order of the left attempt, and what only the
/// right one has behind the step that it came after there.
fn paired<'a>(left: &'a [Step], right: &'a [Step]) -> Vec<Pair<'a>> {
    let (left, right) = (numbered(left), numbered(right));
    let shared: HashMap<_, usize> = right.iter().enumerate().map(|(at, (key, _))| (*key, at)).collect();
    let in_left: HashSet<_> = left.iter().map(|(key, _)| *key).collect();
    let mut pairs = Vec::new();
    let mut next = 0;
    let only_right = |pairs: &mut Vec<Pair<'a>>, from: usize, to: usize| {
        let alone = right[from..to].iter().filter(|(key, _)| !in_left.contains(key));
        pairs.extend(alone.map(|(_, step)| Pair { left: None, right: Some(*step) }));
    };
    for (key, step) in &left {
        let at = shared.get(key).copied();
        if let Some(at) = at.filter(|at| *at >= next) {
            only_right(&mut pairs, next, at);
            next = at + 1;
        }
        pairs.push(Pair { left: Some(*step), right: at.map(|at| right[at].1) });
    }
    only_right(&mut pairs, next, right.len());
    pairs
}

/// Each step with its name and how often that name has come so far.
fn numbered(steps: &[Step]) -> Vec<((&str, usize), &Step)> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut nth = |name| {
        let count = seen.entry(name).or_default();
        *count += 1;
        *count
    };
    steps.iter().map(|step| ((step.name.as_str(), nth(step.name.as_str())), step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(names: &[&str]) -> Vec<Step> {
        let now = chrono::Utc::now();
        let step = |(n, name): (usize, &&str)| Step {
            seq: n as i32 + 1,
            name: (*name).to_owned(),
            status: "ok",
            started_at: now,
            finished_at: now,
            duration_ms: 1.0,
            tokens: 0,
            cost_usd: 0.0,
            retry_count: 0,
            error: None,
            meta: serde_json::Value::Null,
        };
        names.iter().enumerate().map(step).collect()
    }

    fn names(left: &[&str], right: &[&str]) -> Vec<String> {
        let (left, right) = (steps(left), steps(right));
        let name = |step: Option<&Step>| step.map_or("-".to_owned(), |step| step.name.clone());
        paired(&left, &right).iter().map(|pair| format!("{}|{}", name(pair.left), name(pair.right))).collect()
    }

    #[test]
    fn steps_of_two_attempts_are_paired_by_name_and_turn() {
        assert_eq!(names(&["a", "b", "c"], &["a", "x", "b"]), ["a|a", "-|x", "b|b", "c|-"]);
        assert_eq!(names(&["a", "a"], &["a", "a", "a"]), ["a|a", "a|a", "-|a"]);
        assert_eq!(names(&[], &["a"]), ["-|a"]);
        assert_eq!(names(&["b", "a"], &["a", "b"]), ["b|b", "a|a"]);
    }
}
