//! What an attempt uses and costs, charged to its steps as they end.
//!
//! The meter runs from the moment the browsing context is open. Each charge takes everything since the one before, so that
//! the costs of the steps add up to that of the attempt, with what lies between the steps in the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::cost::{ModelCall, Prices};
use crate::failure::{Failure, FailureReason};
use crate::telemetry::Usage;

/// Counts what one attempt uses.
#[derive(Debug)]
pub struct Meter {
    prices: Arc<Prices>,
    /// US dollars that this attempt may cost; None: any amount.
    budget: Option<f64>,
    /// Whether the bytes that are moved go through a proxy, and cost something.
    proxied: bool,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    charged: Duration,
    proxy_bytes: u64,
    calls: Vec<ModelCall>,
    spent_usd: f64,
}

impl Meter {
    /// A meter that begins to run now.
    pub fn start(prices: Arc<Prices>, budget: Option<f64>, proxied: bool) -> Meter {
        Meter { prices, budget, proxied, began: Instant::now(), state: Mutex::default() }
    }

    /// Reports a call of a language model, also one that failed: the step that is under way is charged for it.
    pub fn report(&self, call: ModelCall) {
        self.lock().calls.push(call);
    }

    /// When the budget is used up by the browser alone; None: never.
    pub fn ends_at(&self) -> Option<Instant> {
        self.began.checked_add(self.ends_after()?)
    }

    /// The same, counted from the beginning.
    fn ends_after(&self) -> Option<Duration> {
        let charged = self.lock().charged;
        let left = self.budget? - self.spent_at(charged);
        let time = Duration::try_from_secs_f64(left.max(0.0) / self.prices.browser_second_usd);
        time.ok().and_then(|time| charged.checked_add(time))
    }

    /// Whether so much more may be spent.
    ///
    /// # Errors
    /// `budget.exceeded`: it would be more than the task may cost.
    pub fn afford(&self, more_usd: f64) -> Result<(), Failure> {
        self.afford_at(self.began.elapsed(), more_usd)
    }

    fn afford_at(&self, elapsed: Duration, more_usd: f64) -> Result<(), Failure> {
        let Some(budget) = self.budget else { return Ok(()) };
        let spent = self.spent_at(elapsed);
        if spent + more_usd < budget { Ok(()) } else { Err(exceeded(budget, spent)) }
    }

    /// Whether a call may be made that uses no more than `most`.
    ///
    /// # Errors
    /// As for [`Meter::afford`].
    pub fn afford_call(&self, most: &ModelCall) -> Result<(), Failure> {
        self.afford(self.prices.call(most))
    }

    /// The failure of an attempt that has used up its budget.
    pub fn exceeded(&self) -> Failure {
        exceeded(self.budget.unwrap_or_default(), self.spent_at(self.began.elapsed()))
    }

    /// Charges all that was used since the last charge; `moved` is how many bytes the tab has moved so far. With it
    /// comes what was used, for the step's meta: None if nothing was.
    pub fn charge(&self, moved: u64) -> (Usage, Option<Value>) {
        self.charge_at(self.began.elapsed(), moved)
    }

    fn charge_at(&self, elapsed: Duration, moved: u64) -> (Usage, Option<Value>) {
        let proxy_bytes = if self.proxied { moved } else { 0 };
        let mut state = self.lock();
        let time = elapsed.saturating_sub(state.charged);
        let bytes = proxy_bytes.saturating_sub(state.proxy_bytes);
        let calls = std::mem::take(&mut state.calls);
        (state.charged, state.proxy_bytes) = (elapsed, state.proxy_bytes.max(proxy_bytes));
        let models = calls.iter().fold(0.0, |sum, call| sum + self.prices.call(call));
        let cost_usd = self.prices.browser(time) + self.prices.proxy(bytes) + models;
        let tokens: u64 = calls.iter().map(|call| call.input_tokens + call.output_tokens).sum();
        state.spent_usd += cost_usd;
        drop(state);

        let mut used = Map::new();
        used.insert("browser_seconds".to_owned(), json!((time.as_secs_f64() * 1e3).round() / 1e3));
        if bytes > 0 {
            used.insert("proxy_bytes".to_owned(), bytes.into());
        }
        if !calls.is_empty() {
            used.insert("model_calls".to_owned(), json!(calls));
        }
        if !self.prices.version.is_empty() {
            used.insert("price_table".to_owned(), self.prices.version.as_str().into());
        }
        let usage = Usage { tokens: i64::try_from(tokens).unwrap_or(i64::MAX), cost_usd };
        (usage, (cost_usd > 0.0 || tokens > 0).then_some(Value::Object(used)))
    }

    /// What was charged, and what the browser has cost since.
    fn spent_at(&self, elapsed: Duration) -> f64 {
        let state = self.lock();
        let calls = state.calls.iter().fold(0.0, |sum, call| sum + self.prices.call(call));
        state.spent_usd + calls + self.prices.browser(elapsed.saturating_sub(state.charged))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exceeded(budget: f64, spent: f64) -> Failure {
    let message = format!(
        "this attempt has cost ${spent:.6} and the task may cost no more than ${budget:.6} from here on; raise \
         budget.task_usd, then retry it"
    );
    Failure::terminal(FailureReason::Unknown, "budget.exceeded", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::ModelPrice;

    fn prices(browser_second_usd: f64) -> Arc<Prices> {
        let model = ModelPrice { name: "m".to_owned(), input_per_million_usd: 1e6, output_per_million_usd: 2e6 };
        Arc::new(Prices { version: "v1".to_owned(), browser_second_usd, proxy_gb_usd: 1e9, models: vec![model] })
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn charges_add_up_to_all_that_was_used() {
        let meter = Meter::start(prices(1.0), None, true);
        let (first, _) = meter.charge_at(seconds(2), 10);
        meter.report(ModelCall { model: "m".to_owned(), input_tokens: 4, output_tokens: 1 });
        let (second, used) = meter.charge_at(seconds(5), 15);
        assert_eq!((first.cost_usd, first.tokens), (12.0, 0));
        assert_eq!((second.cost_usd, second.tokens), (3.0 + 5.0 + 6.0, 5));
        assert_eq!(used.unwrap()["model_calls"][0]["output_tokens"], 1);
        assert_eq!(meter.charge_at(seconds(5), 15), (Usage::default(), None));
    }

    #[test]
    fn without_a_proxy_bytes_cost_nothing() {
        let meter = Meter::start(prices(1.0), None, false);
        assert_eq!(meter.charge_at(seconds(1), 1_000_000).0.cost_usd, 1.0);
    }

    #[test]
    fn a_budget_ends_before_it_is_exceeded() {
        let meter = Meter::start(prices(1.0), Some(10.0), false);
        assert_eq!(meter.ends_after(), Some(seconds(10)));
        assert!(meter.afford_at(seconds(0), 9.0).is_ok());
        assert_eq!(meter.afford_at(seconds(1), 9.0).unwrap_err().code, "budget.exceeded");
        meter.report(ModelCall { model: "m".to_owned(), input_tokens: 6, output_tokens: 0 });
        assert_eq!(meter.ends_after(), Some(seconds(4)));
        assert!(meter.afford_at(seconds(3), 0.9).is_ok() && meter.afford_at(seconds(4), 0.0).is_err());
        assert_eq!(Meter::start(prices(0.0), Some(1.0), false).ends_at(), None);
    }
}
