//! The protocol as a machine: one task, two workers, Postgres, the run directory and the site.
//!
//! One action is one thing that takes effect at once: a statement that commits, a file that gets its name, a request that
//! leaves. Between any two of them a process can die, or be stopped and go on later. What goes wrong costs one of
//! [`Protocol::faults`]; when they are used up, everything that is left goes well. `docs/PROTOCOL.md` has the same steps
//! in words.
//!
//! Time is what the order of actions says. A lease ends by Postgres' clock only after its holder's own deadline has
//! passed, unless that process is gone, or stopped: that is what the margin of the self-fence is for.

use stateright::{Model, Property};

use super::properties;

pub const WORKERS: usize = 2;
/// Failures that are repeated, and workers that may be lost, before a task is a dead letter. The program has 3 and 3.
pub const MAX_RETRIES: u8 = 1;
pub const MAX_LOSSES: u8 = 2;

/// What the protocol does without in a broken variant of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    FenceOfIntent,
    FenceOfLetGo,
    FenceOfSettlement,
    FenceOfJournal,
    SelfFence,
    RecordRevoked,
    LetGoRecorded,
    OpenIntentHonoured,
    OnlyLooksAfterLetGo,
    OneRequestOnly,
    RecordBeforeSettlement,
    ReaperAdopts,
    AdoptedStaysSettled,
    ConfirmationAsked,
    UncertainIfOpen,
    CertainIfNothingLeft,
    FailuresCharged,
    LossesCharged,
    ShutdownsFree,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Pending,
    Running,
    Completed,
    Failed,
}

/// What is committed of an attempt when it ends; `worker::verdict::decide`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Completed,
    Retry,
    Dead,
    Uncertain,
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    Running,
    Succeeded,
    Failed,
    Released,
    Lost,
}

/// The one request of an attempt that can't be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    NotSent,
    UnderWay,
    Accepted,
    Refused,
    Vanished,
}

/// An attempt: its row in Postgres, its file in the run directory, its request at the site. Its place in the list is its
/// fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    pub worker: u8,
    /// The process that made it has died.
    pub gone: bool,
    /// Confirmed retries before it.
    pub era: u8,
    pub row: Row,
    pub intent: bool,
    pub let_go: bool,
    /// `submit_outcome`: what the site answered.
    pub outcome: Option<bool>,
    pub waived: bool,
    /// `final_result.json`.
    pub record: Option<Verdict>,
    pub request: Request,
    /// Requests beyond the first.
    pub repeated: u8,
    /// Its machine's clock stood still while it was stopped, so it can't know that its time is over.
    pub stood_still: bool,
}

impl Attempt {
    /// Whether the request may have left and nobody knows what the site made of it: `claimed_tasks` in `migrations/`.
    fn is_open(&self) -> bool {
        self.intent && !self.waived && (self.outcome.is_none() || matches!(self.row, Row::Lost | Row::Released))
    }
}

/// What a claim says of an earlier attempt's intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Open {
    Nothing,
    NotLetGo,
    LetGo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// On the page, before the gate.
    Working,
    IntentOnRecord,
    LetGoOnRecord,
    /// Found the lease to be held after "let go" was committed; the next thing it does is to send.
    Checked,
    Sent,
    Judged(Verdict),
    Recorded(Verdict),
}

/// An attempt as its process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    pub fence: u8,
    pub open: Open,
    pub phase: Phase,
    /// Failures charged before this attempt, as the claim said.
    failures: u8,
    /// Its own deadline has passed: it stops, and writes nothing any more.
    pub late: bool,
    /// Stopped between the last check and the sending.
    pub stopped_in_window: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sleep {
    /// SIGSTOP: the monotonic clock goes on.
    Stopped,
    /// The whole machine: so does not its clock.
    Suspended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    pub down: bool,
    pub asleep: Option<Sleep>,
    pub attempt: Option<Local>,
    /// A settlement that Postgres was not there for; survives the process.
    pub journal: Option<u8>,
    /// A lapsed attempt that its reaper has looked at, and whether its record was there.
    reaping: Option<(u8, bool)>,
}

/// What has happened, for the properties; no part of the protocol reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    pub fenced_effect: bool,
    pub reopened: bool,
    pub retried_uncertain: bool,
    /// Since the task was enqueued or retried by hand.
    pub failures: u8,
    pub losses: u8,
    pub dead_by_losses: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub status: Status,
    /// The attempt that holds the task.
    pub fence: Option<u8>,
    lease_over: bool,
    pub failures: u8,
    pub losses: u8,
    /// Failed with `outcome.uncertain`.
    pub uncertain: bool,
    pub attempts: Vec<Attempt>,
    /// Whose `init.json` is in the run directory.
    directory: u8,
    pub workers: [Worker; WORKERS],
    era: u8,
    faults: u8,
    pub history: History,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Given,
    /// Committed, and the worker does not learn of it.
    Lost,
    /// Postgres is away: nothing happened.
    Away,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Claim(u8),
    ClaimAnswerLost(u8),
    Crash(u8),
    Restart(u8),
    FallAsleep(u8, Sleep),
    WakeUp(u8),
    DeadlinePasses(u8),
    StopLate(u8),
    LeaseEnds,
    PageFails(u8, bool),
    LooksAndFinds(u8),
    LooksAndMisses(u8),
    CommitIntent(u8, Answer),
    MarkLetGo(u8, Answer),
    CheckLease(u8),
    Send(u8),
    SendAgain(u8),
    Arrive(u8, bool),
    Vanish(u8),
    HearAnswer(u8, Answer),
    HearNothing(u8),
    StopWaiting(u8),
    ShutDown(u8),
    WriteRecord(u8),
    Settle(u8, Answer),
    KeepInJournal(u8),
    ReplayJournal(u8),
    ReaperLooks(u8),
    ReaperActs(u8),
    RetryByHand { confirmed: bool },
}

pub struct Protocol {
    /// Things that may go wrong, of any kinds and at any times.
    pub faults: u8,
    pub without: Option<Guard>,
}

impl Protocol {
    fn lacks(&self, guard: Guard) -> bool {
        self.without == Some(guard)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            status: Status::Pending,
            fence: None,
            lease_over: false,
            failures: 0,
            losses: 0,
            uncertain: false,
            attempts: Vec::new(),
            directory: 0,
            workers: Default::default(),
            era: 0,
            faults: self.faults,
            history: History::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let faulty = state.faults > 0;
        for (w, worker) in (0u8..).zip(&state.workers) {
            let idle = worker.attempt.is_none() && worker.reaping.is_none();
            if worker.down {
                if !state.has_ended() || worker.journal.is_some() {
                    actions.push(Action::Restart(w));
                }
                continue;
            }
            if worker.asleep.is_some() {
                actions.push(Action::WakeUp(w));
                continue;
            }
            if faulty && !idle {
                actions.push(Action::Crash(w));
            }
            match worker.attempt {
                Some(local) => self.attempt_actions(state, w, local, actions),
                None if worker.journal.is_some() => actions.push(Action::ReplayJournal(w)),
                // Which of the two is first makes no difference.
                None if state.status == Status::Pending && (w == 0 || !state.attempts.is_empty()) => {
                    actions.push(Action::Claim(w));
                    if faulty {
                        actions.push(Action::ClaimAnswerLost(w));
                    }
                }
                None => {}
            }
            if worker.reaping.is_some() {
                actions.push(Action::ReaperActs(w));
            } else if idle && worker.journal.is_none() && state.has_lapsed(w) {
                actions.push(Action::ReaperLooks(w));
            }
        }
        for (fence, attempt) in (0u8..).zip(&state.attempts) {
            if attempt.request == Request::UnderWay {
                actions.push(Action::Arrive(fence, true));
                if faulty {
                    actions.extend([Action::Arrive(fence, false), Action::Vanish(fence)]);
                }
            }
        }
        if self.lease_can_end(state) {
            actions.push(Action::LeaseEnds);
        }
        if state.status == Status::Failed && faulty {
            let asks = state.uncertain && !self.lacks(Guard::ConfirmationAsked);
            actions.push(Action::RetryByHand { confirmed: asks });
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        if action.is_fault() {
            state.faults -= 1;
        }
        self.take(&mut state, action);
        state.settle_down();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Action {
    fn is_fault(self) -> bool {
        use Action::*;
        match self {
            ClaimAnswerLost(_)
            | Crash(_)
            | FallAsleep(..)
            | DeadlinePasses(_)
            | PageFails(..)
            | SendAgain(_)
            | Arrive(_, false)
            | Vanish(_)
            | HearNothing(_)
            | ShutDown(_)
            | KeepInJournal(_)
            | RetryByHand { .. } => true,
            CommitIntent(_, answer) | MarkLetGo(_, answer) | HearAnswer(_, answer) | Settle(_, answer) => {
                answer != Answer::Given
            }
            _ => false,
        }
    }
}

impl State {
    fn holder(&self) -> Option<&Local> {
        let locals = self.workers.iter().filter(|worker| !worker.down).filter_map(|worker| worker.attempt.as_ref());
        locals.into_iter().find(|local| Some(local.fence) == self.fence)
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.status, Status::Completed | Status::Failed)
    }

    /// Forgets what can't matter any more, so that states that differ in nothing else are one.
    fn settle_down(&mut self) {
        for (fence, attempt) in (0u8..).zip(&mut self.attempts) {
            if attempt.row != Row::Running {
                (attempt.worker, attempt.gone) = (0, false);
            }
            let at_work = |worker: &Worker| {
                worker.attempt.is_some_and(|local| local.fence == fence) || worker.journal == Some(fence)
            };
            if attempt.row == Row::Lost
                && !self.workers.iter().any(at_work)
                && attempt.record != Some(Verdict::Completed)
            {
                attempt.record = None;
                attempt.stood_still = false;
            }
        }
    }

    fn holds(&self, fence: u8) -> bool {
        self.status == Status::Running && self.fence == Some(fence)
    }

    /// Whether this worker's reaper may take the task back: the lease is over, or its own earlier process held it.
    fn has_lapsed(&self, w: u8) -> bool {
        let Some(fence) = self.fence else { return false };
        let attempt = &self.attempts[usize::from(fence)];
        self.lease_over || (attempt.worker == w && attempt.gone)
    }
}

impl Protocol {
    fn attempt_actions(&self, state: &State, w: u8, local: Local, actions: &mut Vec<Action>) {
        let faulty = state.faults > 0;
        let with_answers = |action: fn(u8, Answer) -> Action, actions: &mut Vec<Action>| {
            actions.push(action(w, Answer::Given));
            if faulty {
                actions.extend([action(w, Answer::Lost), action(w, Answer::Away)]);
            }
        };
        if local.late && !(local.phase == Phase::Checked && local.stopped_in_window) {
            actions.push(Action::StopLate(w));
            if self.lacks(Guard::RecordRevoked) && matches!(local.phase, Phase::Judged(_)) {
                actions.push(Action::WriteRecord(w));
            }
            return;
        }
        if faulty {
            actions.extend([Action::FallAsleep(w, Sleep::Stopped), Action::FallAsleep(w, Sleep::Suspended)]);
            if !local.late && local.phase != Phase::Checked {
                actions.push(Action::DeadlinePasses(w));
            }
        }
        match local.phase {
            Phase::Working => {
                if local.open == Open::LetGo {
                    let looked_for = |attempt: &Attempt| attempt.let_go && attempt.request == Request::Accepted;
                    if state.attempts.iter().any(looked_for) {
                        actions.push(Action::LooksAndFinds(w));
                    }
                    actions.push(Action::LooksAndMisses(w));
                } else {
                    with_answers(Action::CommitIntent, actions);
                }
                if faulty {
                    actions.extend([Action::PageFails(w, true), Action::PageFails(w, false), Action::ShutDown(w)]);
                }
            }
            Phase::IntentOnRecord => {
                with_answers(Action::MarkLetGo, actions);
                if faulty {
                    actions.push(Action::ShutDown(w));
                }
            }
            Phase::LetGoOnRecord => actions.push(Action::CheckLease(w)),
            Phase::Checked => actions.push(Action::Send(w)),
            Phase::Sent => {
                match state.attempts[usize::from(local.fence)].request {
                    Request::Accepted | Request::Refused => {
                        actions.push(Action::HearAnswer(w, Answer::Given));
                        if faulty {
                            actions.push(Action::HearAnswer(w, Answer::Away));
                        }
                    }
                    Request::Vanished => actions.push(Action::StopWaiting(w)),
                    _ => {}
                }
                if faulty {
                    actions.extend([Action::HearNothing(w), Action::ShutDown(w)]);
                    if self.lacks(Guard::OneRequestOnly) {
                        actions.push(Action::SendAgain(w));
                    }
                }
            }
            Phase::Judged(_) => {
                actions.push(Action::WriteRecord(w));
                if self.lacks(Guard::RecordBeforeSettlement) {
                    actions.push(Action::Settle(w, Answer::Given));
                }
            }
            Phase::Recorded(_) => {
                with_answers(Action::Settle, actions);
                if faulty {
                    actions.push(Action::KeepInJournal(w));
                }
            }
        }
    }

    /// Postgres' clock passes the end of the lease: not before its holder's own deadline, unless nobody renews it.
    fn lease_can_end(&self, state: &State) -> bool {
        if state.status != Status::Running || state.lease_over {
            return false;
        }
        let Some(holder) = state.holder() else { return true };
        let asleep = state.workers.iter().any(|worker| worker.asleep.is_some() && worker.attempt == Some(*holder));
        let stood_still = state.attempts[usize::from(holder.fence)].stood_still;
        holder.late || asleep || stood_still || (self.lacks(Guard::SelfFence) && state.faults > 0)
    }

    fn take(&self, state: &mut State, action: Action) {
        match action {
            Action::Claim(w) => self.claim(state, w, true),
            Action::ClaimAnswerLost(w) => self.claim(state, w, false),
            Action::Crash(w) => {
                let worker = &mut state.workers[usize::from(w)];
                *worker = Worker { down: true, journal: worker.journal, ..Worker::default() };
                for attempt in state.attempts.iter_mut().filter(|attempt| attempt.worker == w) {
                    attempt.gone |= attempt.row == Row::Running;
                }
            }
            Action::Restart(w) => state.workers[usize::from(w)].down = false,
            Action::FallAsleep(w, sleep) => {
                let worker = &mut state.workers[usize::from(w)];
                worker.asleep = Some(sleep);
                if let Some(local) = &mut worker.attempt {
                    local.stopped_in_window |= local.phase == Phase::Checked;
                    state.attempts[usize::from(local.fence)].stood_still |= sleep == Sleep::Suspended;
                }
            }
            Action::WakeUp(w) => state.workers[usize::from(w)].asleep = None,
            Action::DeadlinePasses(w) => local(state, w).late = true,
            Action::StopLate(w) => state.workers[usize::from(w)].attempt = None,
            Action::LeaseEnds => self.lease_ends(state),
            Action::PageFails(w, retryable) => self.fail(state, w, retryable),
            Action::LooksAndFinds(w) => local(state, w).phase = Phase::Judged(Verdict::Completed),
            Action::LooksAndMisses(w) => {
                if self.lacks(Guard::OnlyLooksAfterLetGo) {
                    local(state, w).open = Open::Nothing;
                } else {
                    self.fail(state, w, false);
                }
            }
            Action::CommitIntent(w, answer) => self.commit_intent(state, w, answer),
            Action::MarkLetGo(w, answer) => self.mark_let_go(state, w, answer),
            Action::CheckLease(w) => local(state, w).phase = Phase::Checked,
            Action::Send(w) => {
                let (fence, allowed) = {
                    let local = local(state, w);
                    local.phase = Phase::Sent;
                    (local.fence, local.stopped_in_window)
                };
                let attempt = &mut state.attempts[usize::from(fence)];
                attempt.request = Request::UnderWay;
                let excused = allowed || attempt.stood_still;
                state.history.fenced_effect |= !excused && !state.holds(fence);
            }
            Action::SendAgain(w) => {
                let fence = local(state, w).fence;
                state.attempts[usize::from(fence)].repeated += 1;
            }
            Action::Arrive(fence, accepted) => {
                state.attempts[usize::from(fence)].request =
                    if accepted { Request::Accepted } else { Request::Refused };
            }
            Action::Vanish(fence) => state.attempts[usize::from(fence)].request = Request::Vanished,
            Action::HearAnswer(w, answer) => self.hear_answer(state, w, answer),
            Action::HearNothing(w) | Action::StopWaiting(w) => self.fail(state, w, true),
            Action::ShutDown(w) => local(state, w).phase = Phase::Judged(Verdict::Released),
            Action::WriteRecord(w) => self.write_record(state, w),
            Action::Settle(w, answer) => {
                let (Phase::Judged(verdict) | Phase::Recorded(verdict)) = local(state, w).phase else { return };
                let fence = local(state, w).fence;
                if answer != Answer::Away {
                    self.settle(state, fence, verdict, self.lacks(Guard::FenceOfSettlement));
                }
                if answer == Answer::Given {
                    state.workers[usize::from(w)].attempt = None;
                }
            }
            Action::KeepInJournal(w) => {
                let fence = local(state, w).fence;
                let worker = &mut state.workers[usize::from(w)];
                worker.attempt = None;
                worker.journal = Some(fence);
            }
            Action::ReplayJournal(w) => {
                let Some(fence) = state.workers[usize::from(w)].journal.take() else { return };
                if let Some(verdict) = state.attempts[usize::from(fence)].record {
                    self.settle(state, fence, verdict, self.lacks(Guard::FenceOfJournal));
                }
            }
            Action::ReaperLooks(w) => {
                let Some(fence) = state.fence else { return };
                let recorded = state.attempts[usize::from(fence)].record.is_some();
                let adopts = recorded && !self.lacks(Guard::ReaperAdopts);
                state.workers[usize::from(w)].reaping = Some((fence, adopts));
            }
            Action::ReaperActs(w) => self.reap(state, w),
            Action::RetryByHand { confirmed } => Self::retry_by_hand(state, confirmed),
        }
    }

    fn claim(&self, state: &mut State, w: u8, answered: bool) {
        let fence = u8::try_from(state.attempts.len()).expect("few attempts");
        // The newest intent, and only that one.
        let open = match state.attempts.iter().rfind(|attempt| attempt.intent) {
            Some(attempt) if attempt.is_open() && attempt.let_go => Open::LetGo,
            Some(attempt) if attempt.is_open() => Open::NotLetGo,
            _ => Open::Nothing,
        };
        let open = if self.lacks(Guard::OpenIntentHonoured) { Open::Nothing } else { open };
        state.history.retried_uncertain |= state.uncertain;
        state.attempts.push(Attempt {
            worker: w,
            gone: false,
            era: state.era,
            row: Row::Running,
            intent: false,
            let_go: false,
            outcome: None,
            waived: false,
            record: None,
            request: Request::NotSent,
            repeated: 0,
            stood_still: false,
        });
        state.status = Status::Running;
        state.fence = Some(fence);
        state.lease_over = false;
        if answered {
            state.directory = fence;
            state.workers[usize::from(w)].attempt = Some(Local {
                fence,
                open,
                phase: Phase::Working,
                failures: state.failures,
                late: false,
                stopped_in_window: false,
            });
        }
    }

    fn lease_ends(&self, state: &mut State) {
        state.lease_over = true;
        let Some(fence) = state.fence else { return };
        for worker in &mut state.workers {
            let stopped = worker.asleep == Some(Sleep::Stopped) && !self.lacks(Guard::SelfFence);
            if let Some(local) = worker.attempt.as_mut().filter(|local| local.fence == fence) {
                local.late |= stopped;
            }
        }
    }

    fn commit_intent(&self, state: &mut State, w: u8, answer: Answer) {
        let fence = local(state, w).fence;
        if answer == Answer::Away {
            return self.fail(state, w, true);
        }
        let held = state.holds(fence);
        if held || self.lacks(Guard::FenceOfIntent) {
            state.history.fenced_effect |= !held;
            state.attempts[usize::from(fence)].intent = true;
            state.lease_over &= !held;
        }
        match answer {
            Answer::Given if held || self.lacks(Guard::FenceOfIntent) => local(state, w).phase = Phase::IntentOnRecord,
            Answer::Given => state.workers[usize::from(w)].attempt = None,
            Answer::Lost | Answer::Away => self.fail(state, w, true),
        }
    }

    fn mark_let_go(&self, state: &mut State, w: u8, answer: Answer) {
        let fence = local(state, w).fence;
        if self.lacks(Guard::LetGoRecorded) {
            local(state, w).phase = Phase::LetGoOnRecord;
            return;
        }
        if answer == Answer::Away {
            return self.fail(state, w, true);
        }
        let marked = state.holds(fence) || self.lacks(Guard::FenceOfLetGo);
        if marked {
            state.attempts[usize::from(fence)].let_go = true;
        }
        match answer {
            Answer::Given if marked => local(state, w).phase = Phase::LetGoOnRecord,
            Answer::Given => state.workers[usize::from(w)].attempt = None,
            Answer::Lost | Answer::Away => self.fail(state, w, true),
        }
    }

    fn hear_answer(&self, state: &mut State, w: u8, answer: Answer) {
        let fence = local(state, w).fence;
        let accepted = state.attempts[usize::from(fence)].request == Request::Accepted;
        if answer == Answer::Given && state.holds(fence) {
            state.attempts[usize::from(fence)].outcome = Some(accepted);
        }
        let local = local(state, w);
        local.phase = Phase::Judged(match accepted {
            true => Verdict::Completed,
            false if local.failures < MAX_RETRIES => Verdict::Retry,
            false => Verdict::Dead,
        });
    }

    /// A failure, as `decide` judges it.
    fn fail(&self, state: &mut State, w: u8, retryable: bool) {
        let local = local(state, w);
        let certain_if_held = !self.lacks(Guard::CertainIfNothingLeft);
        let earlier = local.open == Open::LetGo || (local.open == Open::NotLetGo && !certain_if_held);
        let open = local.phase == Phase::Sent || earlier;
        local.phase = Phase::Judged(match retryable && local.failures < MAX_RETRIES {
            true => Verdict::Retry,
            false if open && !self.lacks(Guard::UncertainIfOpen) => Verdict::Uncertain,
            false => Verdict::Dead,
        });
    }

    fn write_record(&self, state: &mut State, w: u8) {
        let Phase::Judged(verdict) = local(state, w).phase else { return };
        let fence = local(state, w).fence;
        let taken_over = state.directory != fence;
        if taken_over && !self.lacks(Guard::RecordRevoked) {
            state.workers[usize::from(w)].attempt = None;
            return;
        }
        state.history.fenced_effect |= taken_over;
        state.attempts[usize::from(fence)].record = Some(verdict);
        local(state, w).phase = Phase::Recorded(verdict);
    }

    fn settle(&self, state: &mut State, fence: u8, verdict: Verdict, unfenced: bool) {
        let held = state.holds(fence);
        let allowed = held || (unfenced && state.status == Status::Running);
        if !allowed {
            return;
        }
        state.history.fenced_effect |= !held;
        state.attempts[usize::from(fence)].row = match verdict {
            Verdict::Completed => Row::Succeeded,
            Verdict::Released => Row::Released,
            Verdict::Retry | Verdict::Dead | Verdict::Uncertain => Row::Failed,
        };
        state.fence = None;
        state.lease_over = false;
        let charged = match verdict {
            Verdict::Completed => false,
            Verdict::Released => self.lacks(Guard::ShutdownsFree),
            _ => true,
        };
        let failed = matches!(verdict, Verdict::Retry | Verdict::Dead | Verdict::Uncertain);
        state.history.failures += u8::from(failed);
        let used_up = state.failures >= MAX_RETRIES;
        state.failures += u8::from(charged && !self.lacks(Guard::FailuresCharged));
        state.status = match verdict {
            Verdict::Completed => Status::Completed,
            Verdict::Retry if used_up => Status::Failed,
            Verdict::Retry | Verdict::Released => Status::Pending,
            Verdict::Dead | Verdict::Uncertain => Status::Failed,
        };
        state.uncertain = verdict == Verdict::Uncertain;
    }

    fn reap(&self, state: &mut State, w: u8) {
        let Some((fence, adopts)) = state.workers[usize::from(w)].reaping.take() else { return };
        let record = state.attempts[usize::from(fence)].record;
        if let (true, Some(verdict)) = (adopts, record) {
            self.settle(state, fence, verdict, false);
            if self.lacks(Guard::AdoptedStaysSettled) && state.status == Status::Completed {
                state.status = Status::Pending;
                state.history.reopened = true;
            }
            return;
        }
        if !state.holds(fence) || !state.has_lapsed(w) {
            return;
        }
        state.attempts[usize::from(fence)].row = Row::Lost;
        state.fence = None;
        state.lease_over = false;
        state.history.losses += 1;
        state.losses += u8::from(!self.lacks(Guard::LossesCharged));
        let dead = state.losses >= MAX_LOSSES;
        state.status = if dead { Status::Failed } else { Status::Pending };
        state.history.dead_by_losses = dead;
        state.uncertain = false;
    }

    fn retry_by_hand(state: &mut State, confirmed: bool) {
        state.status = Status::Pending;
        (state.failures, state.losses) = (0, 0);
        state.history = History { failures: 0, losses: 0, dead_by_losses: false, ..state.history };
        if state.uncertain && confirmed {
            state.uncertain = false;
            state.era += 1;
            for attempt in &mut state.attempts {
                attempt.waived |= attempt.intent;
            }
        }
    }
}

fn local(state: &mut State, w: u8) -> &mut Local {
    state.workers[usize::from(w)].attempt.as_mut().expect("only attempts that go on act")
}
