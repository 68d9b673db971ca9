//! What has to hold in every state that the protocol can reach, and what has to be reachable at all.

use stateright::{Model, Property};

use super::protocol::{Attempt, MAX_LOSSES, MAX_RETRIES, Phase, Protocol, Request, Row, State, Status, Verdict};

pub const SINGLE_OWNER: &str = "an attempt that acts on the page is the one that holds the task";
pub const FENCED: &str = "nothing of a fenced attempt changes anything";
pub const ONE_SUBMISSION: &str =
    "at most one submission a task that the site did not refuse, unless a person waived it";
pub const NONE_LOST: &str = "no task is lost: where nothing can happen any more it has ended";
pub const COMPLETED_IS_DONE: &str = "what is completed is at the site";
pub const UNCERTAIN_WAITS: &str = "what is uncertain waits for a person";
pub const UNCERTAIN_IS_OPEN: &str = "a dead letter says uncertain if and only if a submission may have left";
pub const BUDGETS: &str = "failures, lost workers and shutdowns are charged to their own budgets, each of them once";
pub const ON_RECORD: &str = "what is settled is on record";
pub const FINAL: &str = "what has ended stays so";
pub const KEPT: &str = "an outcome that reached the disk is not forgotten";

pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(SINGLE_OWNER, |_, state| single_owner(state)),
        Property::always(FENCED, |_, state: &State| !state.history.fenced_effect),
        Property::always(ONE_SUBMISSION, |_, state| one_submission(state)),
        Property::always(NONE_LOST, none_lost),
        Property::always(COMPLETED_IS_DONE, |_, state| completed_is_done(state)),
        Property::always(UNCERTAIN_WAITS, |_, state: &State| !state.history.retried_uncertain),
        Property::always(UNCERTAIN_IS_OPEN, |_, state| uncertain_is_open(state)),
        Property::always(BUDGETS, |_, state| budgets(state)),
        Property::always(ON_RECORD, |_, state| on_record(state)),
        Property::always(FINAL, |_, state: &State| !state.history.reopened),
        Property::always(KEPT, |_, state| kept(state)),
        Property::sometimes("a task is completed at the first try", |_, state: &State| {
            state.status == Status::Completed && state.attempts.len() == 1
        }),
        Property::sometimes("a lost attempt's submission is found", |_, state: &State| {
            state.status == Status::Completed && state.attempts.iter().any(|attempt| attempt.row == Row::Lost)
        }),
        Property::sometimes("an outcome is adopted of a worker that is gone", |_, state: &State| {
            state.status == Status::Completed
                && state.workers.iter().all(|worker| worker.attempt.is_none())
                && state.attempts.len() == 1
                && state.workers[usize::from(state.attempts[0].worker)].down
        }),
        Property::sometimes("a task is a dead letter by its losses", |_, state: &State| state.history.dead_by_losses),
        Property::sometimes("a dead letter is uncertain", |_, state: &State| state.uncertain),
        Property::sometimes("a waived submission is done again", |_, state: &State| {
            state.attempts.iter().filter(|attempt| may_be_there(attempt)).count() == 2
        }),
        Property::sometimes("a zombie sends what it had checked before it was stopped", |_, state: &State| {
            state.attempts.iter().any(|attempt| attempt.row == Row::Lost && attempt.request == Request::UnderWay)
        }),
    ]
}

/// Without those whose machine's clock stood still: nothing on that machine can know that its time is over.
fn single_owner(state: &State) -> bool {
    state.workers.iter().filter(|worker| !worker.down && worker.asleep.is_none()).all(|worker| {
        worker.attempt.is_none_or(|local| {
            let acts = !local.late && !matches!(local.phase, Phase::Judged(_) | Phase::Recorded(_));
            let knows_its_time = !state.attempts[usize::from(local.fence)].stood_still && !local.stopped_in_window;
            !(acts && knows_its_time) || state.fence == Some(local.fence)
        })
    })
}

fn may_be_there(attempt: &Attempt) -> bool {
    !matches!(attempt.request, Request::NotSent | Request::Refused)
}

fn one_submission(state: &State) -> bool {
    let eras = state.attempts.last().map_or(0, |attempt| attempt.era);
    (0..=eras).all(|era| {
        let of_era = state.attempts.iter().filter(|attempt| attempt.era == era);
        of_era.map(|attempt| u8::from(may_be_there(attempt)) + attempt.repeated).sum::<u8>() <= 1
    })
}

/// No action undoes another without using up a fault, so every path comes to such a state.
fn none_lost(protocol: &Protocol, state: &State) -> bool {
    if state.has_ended() {
        return true;
    }
    let mut possible = Vec::new();
    protocol.actions(state, &mut possible);
    !possible.is_empty()
}

fn completed_is_done(state: &State) -> bool {
    state.status != Status::Completed || state.attempts.iter().any(|attempt| attempt.request == Request::Accepted)
}

fn uncertain_is_open(state: &State) -> bool {
    let current = || state.attempts.iter().filter(|attempt| !attempt.waived);
    match state.status {
        Status::Failed if state.uncertain => current().any(|attempt| attempt.let_go),
        Status::Failed if !state.history.dead_by_losses => !current().any(may_be_there),
        _ => true,
    }
}

fn budgets(state: &State) -> bool {
    let charged = state.failures == state.history.failures && state.losses == state.history.losses;
    charged && state.failures <= MAX_RETRIES + 1 && state.losses <= MAX_LOSSES
}

fn on_record(state: &State) -> bool {
    let settled = |attempt: &Attempt| matches!(attempt.row, Row::Succeeded | Row::Failed | Row::Released);
    state.attempts.iter().all(|attempt| !settled(attempt) || attempt.record.is_some())
}

fn kept(state: &State) -> bool {
    let succeeded = |attempt: &Attempt| attempt.record == Some(Verdict::Completed) && !attempt.stood_still;
    let last_era = state.attempts.last().map_or(0, |attempt| attempt.era);
    !(state.status == Status::Failed
        && state.attempts.iter().any(|attempt| attempt.era == last_era && succeeded(attempt)))
}
