//! The protocol of leases, fences and the submit gate, checked in every state it can reach (`docs/PROTOCOL.md`).
//!
//! The first test goes through every order of steps with a number of faults at every place. The others take one guard out
//! of the protocol at a time, and hold that the property that this guard is for is then violated.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: what fails here fails the test")]

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use model::properties;
use model::protocol::{Guard, Protocol};

mod model {
    pub mod properties;
    pub mod protocol;
}

/// Things that go wrong on the way of one task. Each more takes about fifteen times as long.
fn faults() -> u8 {
    std::env::var("PAGEHAND_MODEL_FAULTS").ok().and_then(|faults| faults.parse().ok()).unwrap_or(3)
}

#[test]
fn the_protocol_holds_in_every_state() {
    let checker = Protocol { faults: faults(), without: None }.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them distinct", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

/// Checks that the protocol without `guard` comes to a state that violates `property`; prints a shortest way there.
fn is_caught(guard: Guard, property: &'static str) {
    let protocol = Protocol { faults: 2, without: Some(guard) };
    let found = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = protocol.checker().finish_when(found).spawn_bfs().join();
    let Some(path) = checker.discovery(property) else {
        panic!("without {guard:?} nothing violates: {property}");
    };
    println!("without {guard:?}, violated: {property}\n    {:?}", path.into_actions());
}

#[test]
fn a_deadline_that_fails_costs_no_second_submission() {
    let protocol = Protocol { faults: 2, without: Some(Guard::SelfFence) };
    let found = HasDiscoveries::AnyOf(BTreeSet::from([properties::ONE_SUBMISSION]));
    let checker = protocol.checker().threads(2).finish_when(found).spawn_bfs().join();
    checker.assert_no_discovery(properties::ONE_SUBMISSION);
}

#[test]
fn an_intent_is_committed_under_the_fence() {
    is_caught(Guard::FenceOfIntent, properties::FENCED);
}

#[test]
fn let_go_is_committed_under_the_fence() {
    is_caught(Guard::FenceOfLetGo, properties::ONE_SUBMISSION);
}

#[test]
fn a_settlement_names_the_fence() {
    is_caught(Guard::FenceOfSettlement, properties::FENCED);
}

#[test]
fn what_was_kept_in_the_journal_is_settled_under_the_fence() {
    is_caught(Guard::FenceOfJournal, properties::FENCED);
}

#[test]
fn an_attempt_stops_before_its_lease_can_be_given_away() {
    is_caught(Guard::SelfFence, properties::SINGLE_OWNER);
}

#[test]
fn an_attempt_that_lost_the_directory_writes_nothing_there() {
    is_caught(Guard::RecordRevoked, properties::FENCED);
}

#[test]
fn let_go_is_on_record_before_the_request_leaves() {
    is_caught(Guard::LetGoRecorded, properties::ONE_SUBMISSION);
}

#[test]
fn the_next_attempt_minds_an_open_intent() {
    is_caught(Guard::OpenIntentHonoured, properties::ONE_SUBMISSION);
}

#[test]
fn what_was_let_go_is_looked_for_and_never_sent_again() {
    is_caught(Guard::OnlyLooksAfterLetGo, properties::ONE_SUBMISSION);
}

#[test]
fn the_gate_lets_one_request_go() {
    is_caught(Guard::OneRequestOnly, properties::ONE_SUBMISSION);
}

#[test]
fn the_record_is_on_disk_before_the_settlement() {
    is_caught(Guard::RecordBeforeSettlement, properties::ON_RECORD);
}

#[test]
fn the_reaper_adopts_what_the_lost_attempt_had_decided() {
    is_caught(Guard::ReaperAdopts, properties::KEPT);
}

#[test]
fn a_task_whose_outcome_was_adopted_is_not_queued_again() {
    is_caught(Guard::AdoptedStaysSettled, properties::FINAL);
}

#[test]
fn an_uncertain_task_is_retried_by_a_person_who_says_so() {
    is_caught(Guard::ConfirmationAsked, properties::UNCERTAIN_WAITS);
}

#[test]
fn a_dead_letter_with_an_open_submission_says_so() {
    is_caught(Guard::UncertainIfOpen, properties::UNCERTAIN_IS_OPEN);
}

#[test]
fn a_dead_letter_of_which_nothing_left_does_not_ask_a_person() {
    is_caught(Guard::CertainIfNothingLeft, properties::UNCERTAIN_IS_OPEN);
}

#[test]
fn failures_are_charged() {
    is_caught(Guard::FailuresCharged, properties::BUDGETS);
}

#[test]
fn lost_workers_are_charged() {
    is_caught(Guard::LossesCharged, properties::BUDGETS);
}

#[test]
fn shutdowns_are_free() {
    is_caught(Guard::ShutdownsFree, properties::BUDGETS);
}
