//! What a seed stands for: which tasks, which lives of which workers, which faults when.

use std::time::Duration;

use super::proxy::Loss;
use super::site::Manner;

/// SplitMix64: the same numbers for the same seed for ever.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap_or_default()]
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub tasks: usize,
    pub workers: usize,
    /// Lives of each worker before the last one, which nothing disturbs.
    pub lives: usize,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub tasks: Vec<Manner>,
    /// For each worker its lives.
    pub workers: Vec<Vec<Life>>,
    /// Two of the workers have the same name.
    pub namesakes: bool,
    /// In order, each so long after the one before.
    pub around: Vec<(Duration, Around)>,
}

/// From the start of a process to its end.
#[derive(Debug, Clone)]
pub struct Life {
    /// For `FAILPOINTS`.
    pub faults: String,
    /// What is done to it from outside, in order, each so long after the one before. The last one ends it.
    pub outside: Vec<(Duration, Outside)>,
    /// Its clock jumps by so many seconds soon after it has started.
    pub skew: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// SIGKILL.
    Kill,
    /// SIGTERM, and time to drain.
    Term,
    /// SIGSTOP for longer than the lease, then SIGCONT.
    Stop,
    /// Every Chrome of the cluster is killed.
    KillChrome,
    /// One renderer is.
    KillRenderer,
}

/// What happens to all.
#[derive(Debug, Clone)]
pub enum Around {
    /// Postgres ends as in a crash and is back after this.
    CrashPostgres(Duration),
    /// All its connections are ended.
    EndConnections,
    /// Nothing passes for this long.
    Silence(Duration),
    /// One answer is lost after its commit.
    Lose(Loss),
}

/// Places that a plan may choose; the exhaustive mode finds all of them by itself.
const PLACES: [&str; 22] = [
    "step.task_started.after",
    "step.getting_proxy.before",
    "step.automation_context_entered.after",
    "step.open_page.after",
    "step.submit_intent_committed.before",
    "step.submit_let_go.after",
    "step.submit_form.before",
    "step.result_success.after",
    "db.claim.after",
    "db.renew.after",
    "db.intent.before",
    "db.intent.after",
    "db.let_go.after",
    "db.outcome.before",
    "db.settle.before",
    "db.settle.after",
    "db.reap.after",
    "gate.let_go_marked",
    "gate.released",
    "file.sync",
    "file.final_result.json.before",
    "attempt.recorded",
];
const DATABASE: [&str; 8] = ["claim", "renew", "steps", "intent", "let_go", "outcome", "settle", "reap"];
const FILES: [&str; 7] = [
    "file.create",
    "file.write",
    "file.sync",
    "file.append",
    "file.snapshot.before",
    "file.init.json.before",
    "file.final_result.json.before",
];
const STATEMENTS: [&str; 5] = ["settle_attempts", "claim_tasks", "SET intent", "let_go_at", "reap_tasks"];

impl Plan {
    pub fn of(seed: u64, size: Size) -> Plan {
        let mut dice = Dice::new(seed);
        let manners = [
            Manner::Shows,
            Manner::Shows,
            Manner::Shows,
            Manner::Dawdles,
            Manner::HoldsBack,
            Manner::KeepsAndFails,
            Manner::Registers,
            Manner::Registers,
        ];
        let tasks = (0..size.tasks).map(|_| *dice.pick(&manners)).collect();
        let workers = (0..size.workers).map(|_| (0..size.lives).map(|_| life(&mut dice)).collect()).collect();
        let around = (0..2 + dice.below(3)).map(|_| (dice.millis(500, 4_000), around(&mut dice))).collect();
        Plan { tasks, workers, namesakes: dice.below(4) == 0, around }
    }
}

fn life(dice: &mut Dice) -> Life {
    let skip = |dice: &mut Dice| match dice.below(4) {
        0 => String::new(),
        _ => format!("{}*off->", 1 + dice.below(6)),
    };
    let faults = match dice.below(10) {
        0..=3 => {
            format!("{}={}1*return({})", dice.pick(&PLACES), skip(dice), dice.pick(&["kill", "kill", "power", "stop"]))
        }
        4 | 5 => {
            let (side, often) = (dice.pick(&["before", "after"]), 1 + dice.below(3));
            format!("db.{}.{side}={}{often}*return(gone)", dice.pick(&DATABASE), skip(dice))
        }
        6 => format!("{}={}1*return({})", dice.pick(&FILES), skip(dice), dice.pick(&["ENOSPC", "EIO"])),
        _ => String::new(),
    };
    let mut outside = Vec::new();
    if dice.below(3) == 0 {
        let what = *dice.pick(&[Outside::Stop, Outside::KillChrome, Outside::KillRenderer]);
        outside.push((dice.millis(1_000, 4_000), what));
    }
    outside.push((dice.millis(3_000, 7_000), *dice.pick(&[Outside::Kill, Outside::Kill, Outside::Term])));
    let skew = *dice.pick(&[0, 0, 0, 3_600, -3_600]);
    Life { faults, outside, skew }
}

fn around(dice: &mut Dice) -> Around {
    match dice.below(6) {
        0 => Around::CrashPostgres(dice.millis(10, 1_500)),
        1 => Around::EndConnections,
        2 => Around::Silence(dice.millis(500, 5_000)),
        _ => {
            Around::Lose(Loss { part: dice.pick::<&str>(&STATEMENTS), skip: u32::try_from(dice.below(4)).unwrap_or(0) })
        }
    }
}
