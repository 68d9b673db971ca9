//! What things cost: the price table, and sums by it. Pure: no I/O.
//!
//! A cost is worked out when something is used, and stored: another price later changes nothing that is on record.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The price table, US dollars.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// Name of this table; goes on record beside each cost.
    pub version: String,
    /// A second of a browsing context.
    pub browser_second_usd: f64,
    /// 1,000,000,000 bytes through a proxy, in both directions together.
    pub proxy_gb_usd: f64,
    /// Language models, by the name that the endpoint knows them under. One that is not listed costs nothing.
    pub models: Vec<ModelPrice>,
}

/// What a language model costs, US dollars.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelPrice {
    /// Its name.
    pub name: String,
    /// A million tokens that it reads.
    pub input_per_million_usd: f64,
    /// A million tokens that it writes.
    pub output_per_million_usd: f64,
}

/// One call of a language model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ModelCall {
    /// As it was asked for.
    pub model: String,
    /// Tokens that it read.
    pub input_tokens: u64,
    /// Tokens that it wrote.
    pub output_tokens: u64,
}

/// What may be spent, US dollars. None: any amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// On one task, over all its attempts.
    pub task_usd: Option<f64>,
    /// By all workers of a database, from midnight to midnight, UTC.
    pub day_usd: Option<f64>,
}

impl Prices {
    /// What it costs to have a browsing context open for so long.
    pub fn browser(&self, time: Duration) -> f64 {
        time.as_secs_f64() * self.browser_second_usd
    }

    /// What it costs to move so many bytes through a proxy.
    pub fn proxy(&self, bytes: u64) -> f64 {
        bytes as f64 / 1e9 * self.proxy_gb_usd
    }

    /// What a call costs.
    pub fn call(&self, call: &ModelCall) -> f64 {
        let price = self.models.iter().find(|model| model.name == call.model);
        price.map_or(0.0, |price| {
            (call.input_tokens as f64 * price.input_per_million_usd
                + call.output_tokens as f64 * price.output_per_million_usd)
                / 1e6
        })
    }

    /// The first price that is none: negative, or no number.
    pub fn wrong(&self) -> Option<&'static str> {
        let bad = |price: f64| !price.is_finite() || price < 0.0;
        if bad(self.browser_second_usd) {
            return Some("prices.browser_second_usd");
        }
        if bad(self.proxy_gb_usd) {
            return Some("prices.proxy_gb_usd");
        }
        let wrong = |model: &ModelPrice| bad(model.input_per_million_usd) || bad(model.output_per_million_usd);
        self.models.iter().any(wrong).then_some("prices.models")
    }
}

impl Budget {
    /// The first amount that is none.
    pub fn wrong(&self) -> Option<&'static str> {
        let bad = |amount: Option<f64>| amount.is_some_and(|usd| !usd.is_finite() || usd <= 0.0);
        if bad(self.task_usd) {
            return Some("budget.task_usd");
        }
        bad(self.day_usd).then_some("budget.day_usd")
    }

    /// How many more tasks may be started so that the day's budget holds, if each costs no more than a task may; all of
    /// them, as long as anything is left, where there is no limit for a task.
    pub fn affordable(&self, spent_today_usd: f64, running: i64) -> i64 {
        let Some(day) = self.day_usd else { return i64::MAX };
        match self.task_usd {
            Some(task) => (((day - spent_today_usd) / task + 1e-9).floor() as i64).saturating_sub(running).max(0),
            None if spent_today_usd < day => i64::MAX,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices() -> Prices {
        let model = ModelPrice { name: "m".to_owned(), input_per_million_usd: 2.0, output_per_million_usd: 8.0 };
        Prices { version: "1".to_owned(), browser_second_usd: 0.001, proxy_gb_usd: 4.0, models: vec![model] }
    }

    #[test]
    fn costs_are_by_second_gigabyte_and_direction() {
        let prices = prices();
        assert!((prices.browser(Duration::from_millis(2_500)) - 0.0025).abs() < 1e-12);
        assert!((prices.proxy(250_000_000) - 1.0).abs() < 1e-12);
        let call = ModelCall { model: "m".to_owned(), input_tokens: 1_000, output_tokens: 500 };
        assert!((prices.call(&call) - 0.006).abs() < 1e-12);
        assert_eq!(prices.call(&ModelCall { model: "other".to_owned(), ..call }), 0.0);
    }

    #[test]
    fn a_price_that_is_none_is_named() {
        assert_eq!(Prices { browser_second_usd: -1.0, ..prices() }.wrong(), Some("prices.browser_second_usd"));
        assert_eq!(Prices { proxy_gb_usd: f64::NAN, ..prices() }.wrong(), Some("prices.proxy_gb_usd"));
        assert_eq!(Budget { day_usd: Some(0.0), task_usd: None }.wrong(), Some("budget.day_usd"));
        assert_eq!(prices().wrong(), None);
    }

    #[test]
    fn the_day_takes_as_many_tasks_as_it_can_pay_for() {
        let budget = Budget { task_usd: Some(0.1), day_usd: Some(1.0) };
        assert_eq!(budget.affordable(0.0, 0), 10);
        assert_eq!(budget.affordable(0.65, 2), 1);
        assert_eq!(budget.affordable(0.95, 0), 0);
        assert_eq!(budget.affordable(2.0, 0), 0);
        assert_eq!(Budget { task_usd: None, ..budget }.affordable(0.99, 100), i64::MAX);
        assert_eq!(Budget { task_usd: None, ..budget }.affordable(1.0, 0), 0);
        assert_eq!(Budget::default().affordable(1e9, 9), i64::MAX);
    }
}
