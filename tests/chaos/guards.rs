//! Takes each guard out of the program, or out of the schema, and sees that something turns red.
//!
//! What turns red is named beside it: a test of the project, or a kill at a place after which the checker finds a
//! violation. The same has to be green while the guard is in.

use std::collections::HashMap;
use std::process::Stdio;

use tokio::process::Command;

use super::points;

/// Where a guard is and how it is taken out.
enum Guard {
    /// `guard.NAME` of `src/fault.rs`.
    Code(&'static str),
    /// The first, where the second, which stands before it, is out anyway.
    Behind(&'static str, &'static str),
    /// In each function of that name the first text is replaced by the second.
    Schema(&'static [(&'static str, &'static str, &'static str)]),
}

/// What turns red without it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Proof {
    /// A test of `tests/FILE.rs`.
    Test(&'static str, &'static str),
    /// A test of `src/PATH.rs`.
    Unit(&'static str, &'static str),
    /// A worker that ends at a place with an action, and what others make of it.
    Kill(&'static str, &'static str),
}

use Guard::{Behind, Code, Schema};
use Proof::{Kill, Test, Unit};

const ZOMBIE: Proof = Test("queue_races", "a_zombie_can_change_nothing_after_its_lease_was_given_away");
const SLEPT: Proof =
    Test("telemetry_recovery", "an_attempt_that_slept_through_the_end_of_its_lease_writes_nothing_over_its_successor");
const TORN: Proof =
    Test("telemetry_recovery", "a_torn_last_line_and_temporary_files_are_put_aside_and_whole_lines_are_not_touched");

const GUARDS: &[(Guard, Proof)] = &[
    (Code("gate.hold"), Kill("nowhere", "kill")),
    (Code("gate.second"), Test("gate", "a_page_that_submits_everything_several_times_gets_it_once")),
    (Code("gate.intent"), Kill("nowhere", "kill")),
    (Code("gate.let_go"), Kill("nowhere", "kill")),
    (Code("tab.seal"), Test("browser_submit", "a_post_that_is_refused_never_reaches_the_server")),
    (Behind("heartbeat.is_ours", "heartbeat.self_fence"), Kill("db.let_go.after", "stop")),
    (
        Code("heartbeat.self_fence"),
        Test("self_fence", "a_worker_that_can_not_renew_leaves_the_page_before_somebody_else_may_have_the_task"),
    ),
    (Code("look.comment"), Kill("db.outcome.before", "kill")),
    (Code("look.registration"), Test("recovery", "an_account_is_found_by_logging_in")),
    (Code("verdict.open"), Test("worker", "a_dead_letter_is_uncertain_only_if_an_earlier_submission_may_have_left")),
    (Code("renew.fence"), ZOMBIE),
    (Code("intent.fence"), ZOMBIE),
    (Code("let_go.fence"), ZOMBIE),
    (
        Schema(&[
            ("settle_attempts", "AND t.fence = s.fence AND t.status = 'running'", ""),
            ("settle_attempts", "AND a.status = 'running'", ""),
            ("settle_attempts", "AND t.fence = j.fence AND t.status = 'running'", ""),
        ]),
        ZOMBIE,
    ),
    (
        Schema(&[("lapsed_tasks", "t.lease_expires_at < at_time", "true")]),
        Test("queue_races", "a_restarted_worker_takes_back_at_once_what_its_dead_life_held"),
    ),
    (
        Schema(&[(
            "lapsed_tasks",
            "pg_try_advisory_xact_lock(hashtextextended('pagehand worker ' || other, 0))",
            "true",
        )]),
        Test("queue_races", "a_restarted_worker_takes_back_at_once_what_its_dead_life_held"),
    ),
    (
        Schema(&[("claim_tasks", "p_claim, clock_timestamp()", "p_claim, at_time")]),
        Test("queue_races", "a_claim_that_picks_what_was_taken_back_meanwhile_begins_after_it"),
    ),
    (
        Schema(&[("reap_tasks", "max_losses CONSTANT integer := 3", "max_losses CONSTANT integer := 300")]),
        Test("queue", "a_task_that_lost_its_worker_three_times_is_a_dead_letter"),
    ),
    (
        Schema(&[("reap_tasks", "RAISE WARNING", "RAISE EXCEPTION")]),
        Test("queue_races", "one_row_that_can_not_be_taken_back_does_not_keep_the_others"),
    ),
    (
        Schema(&[("complete_lost_attempt", "AND a.status = 'lost'", "")]),
        Test("queue_bad_rows", "only_a_lost_attempt_is_completed_from_its_disk_and_what_it_recorded_itself_stays"),
    ),
    (
        Schema(&[("claim_records_due", "AND a.status <> 'running'", "")]),
        Test("queue_bad_rows", "a_record_is_due_until_somebody_has_written_it"),
    ),
    (
        Schema(&[("retry_tasks", "AND NOT p_confirm_uncertain", "AND false")]),
        Test("queue", "an_uncertain_outcome_is_retried_only_with_a_second_confirmation_and_then_looks_no_more"),
    ),
    (Code("settle.one_by_one"), Test("queue", "one_settlement_that_can_not_be_stored_does_not_harm_the_others")),
    (Code("outcome.keep"), Test("outcomes", "an_outcome_is_kept_while_postgres_is_away_and_delivered_when_it_is_back")),
    (Code("reaper.adopt"), Test("outcomes", "the_result_of_a_worker_that_died_before_it_could_settle_is_adopted")),
    (Code("reaper.same_process"), Test("outcomes", "a_result_that_an_attempt_of_another_database_left_is_not_adopted")),
    (Code("record.due"), Kill("step.fill_form.after", "kill")),
    (Code("record.others"), Test("worker", "a_record_that_postgres_does_not_take_keeps_back_none_of_the_others")),
    (Code("file.sync"), Kill("file.final_result.json.after", "power")),
    (Code("file.sweep"), TORN),
    (Code("steps.catch_up"), Test("telemetry", "a_line_that_the_disk_did_not_take_comes_before_the_next_one")),
    (Code("steps.mend"), TORN),
    (
        Code("recovery.owner"),
        Unit("telemetry/recovery", "who_sleeps_until_the_next_attempt_has_begun_writes_nothing_into_its_directory"),
    ),
    (
        Code("recovery.send_home"),
        Test("telemetry_recovery", "a_final_result_that_came_into_the_hands_of_the_next_attempt_is_moved_to_its_own"),
    ),
    (Code("run.owner"), SLEPT),
    (Code("run.revoke"), Test("telemetry_recovery", "a_revoked_run_writes_nothing_any_more")),
    (
        Code("run.later"),
        Test(
            "telemetry_recovery",
            "an_attempt_that_slept_before_its_record_began_leaves_the_directory_to_the_later_one",
        ),
    ),
    (
        Code("reserve.give_up"),
        Test(
            "telemetry_disk",
            "on_a_full_disk_the_task_goes_on_its_result_fits_into_the_reserve_and_says_what_is_missing",
        ),
    ),
    (Code("redact"), Test("telemetry", "no_secret_reaches_any_file_in_any_encoding")),
    (Code("run.hide"), Test("secrets", "planted_secrets_are_nowhere_after_success_failure_and_a_killed_worker")),
    (Code("seal.site"), Test("secrets", "a_worker_that_cannot_open_a_password_says_so_in_the_failure")),
    (
        Schema(&[("forget_password", "NEW.payload := jsonb_set(NEW.payload, '{password}', '\"***\"')", "NULL")]),
        Test("secrets", "a_password_is_in_no_table_whatever_becomes_of_its_task_and_opens_for_each_attempt"),
    ),
    (
        Schema(&[("site_room", "IF site_row.quiet_from IS NOT NULL THEN", "IF false THEN")]),
        Test("manners", "nothing_is_begun_in_a_sites_quiet_hours_by_its_own_clocks"),
    ),
    (
        Code("robots"),
        Test(
            "manners",
            "a_page_that_robots_txt_keeps_from_us_is_not_opened_and_the_file_is_fetched_once_for_all_workers",
        ),
    ),
    (Code("egress.way_out"), Test("egress_canaries", "a_page_reaches_nothing_inside_the_network_whatever_it_tries")),
    (
        Code("egress.address"),
        Test("egress", "a_name_whose_answers_change_or_lead_inside_by_an_alias_reaches_nothing_there"),
    ),
];

/// Takes out each guard whose name contains `only`. False: something stayed green without a guard, or was red with all.
pub async fn run(only: &str) -> bool {
    let mut whole: HashMap<(Proof, String), bool> = HashMap::new();
    let mut caught = 0;
    let guards: Vec<&(Guard, Proof)> = GUARDS.iter().filter(|(guard, _)| guard.name().contains(only)).collect();
    for (guard, proof) in &guards {
        let before = guard.without(false);
        let key = (*proof, format!("{before:?}"));
        let green = match whole.get(&key) {
            Some(green) => *green,
            None => proof.is_green(&before).await,
        };
        whole.insert(key, green);
        let red = !proof.is_green(&guard.without(true)).await;
        let verdict = match (green, red) {
            (true, true) => "caught",
            (true, false) => "NOT CAUGHT",
            (false, _) => "RED WITH ALL GUARDS IN",
        };
        caught += usize::from(green && red);
        println!("  {:60} {verdict} by {proof}", guard.name());
    }
    println!("{caught} of {} guards are missed when they are gone", guards.len());
    caught == guards.len()
}

impl Guard {
    fn name(&self) -> String {
        match self {
            Code(name) | Behind(name, _) => (*name).to_owned(),
            Schema(changes) => format!("{}: {}", changes[0].0, changes[0].1),
        }
    }

    /// The environment of a process without it, or of one that it is compared to.
    fn without(&self, itself: bool) -> HashMap<&'static str, String> {
        let off = |names: &[&str]| {
            let faults: Vec<String> = names.iter().map(|name| format!("guard.{name}=return(off)")).collect();
            HashMap::from([("FAILPOINTS", faults.join(";"))])
        };
        match self {
            Behind(name, before) if itself => off(&[name, before]),
            Behind(_, before) => off(&[before]),
            Code(name) if itself => off(&[name]),
            Schema(changes) if itself => {
                let changes: Vec<String> =
                    changes.iter().map(|(place, from, to)| format!("{place}:::{from}:::{to}")).collect();
                HashMap::from([("UNGUARDED_SQL", changes.join(";;;"))])
            }
            Code(_) | Schema(_) => HashMap::new(),
        }
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Test(file, name) => write!(f, "tests/{file}.rs {name}"),
            Unit(path, name) => write!(f, "src/{path}.rs {name}"),
            Kill("nowhere", _) => write!(f, "a task that nothing disturbs"),
            Kill(place, action) => write!(f, "{action} at {place}"),
        }
    }
}

impl Proof {
    async fn is_green(self, environment: &HashMap<&'static str, String>) -> bool {
        match self {
            Test(file, name) => passes(&["--test", file], name, environment).await,
            Unit(path, name) => {
                passes(&["--lib"], &format!("{}::tests::{name}", path.replace('/', "::")), environment).await
            }
            Kill(place, action) => {
                points::one(place, action, environment.get("FAILPOINTS").cloned().unwrap_or_default()).await
            }
        }
    }
}

async fn passes(of: &[&str], name: &str, environment: &HashMap<&'static str, String>) -> bool {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.args(["test", "--quiet", "--features", "failpoints"]).args(of).args(["--", "--exact", name]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).envs(environment).stdin(Stdio::null());
    let output = cargo.output().await.expect("cargo can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("test result") && !text.contains(" 0 passed; 0 failed"), "no test {name} was run: {text}");
    output.status.success()
}
