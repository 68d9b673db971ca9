//! Metrics for the collector: the very instruments that `/metrics` serves, read from the same text, so that the two can't
//! disagree. Sums and histograms are cumulative, from the start of the process.
//!
//! What could not be sent is sent by the next round: a counter that goes on growing loses nothing by a gap.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use url::Url;

use super::{LIMIT, SAY_EVERY, nanos, post, resource, scope};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE` of the protocol.
const CUMULATIVE: u8 = 2;

/// Sends metrics to a collector every so often, by itself; dropped, it ends.
#[derive(Debug)]
pub struct Exporter {
    now: mpsc::Sender<oneshot::Sender<()>>,
}

impl Exporter {
    /// Begins to send what `read` gives, OpenMetrics text, to the collector at `endpoint` (`http://HOST:PORT`, to which
    /// `/v1/metrics` is added), as the process `instance`, every so often.
    pub fn start<F>(
        endpoint: Url,
        instance: String,
        every: Duration,
        read: impl Fn() -> F + Send + Sync + 'static,
    ) -> Exporter
    where
        F: Future<Output = String> + Send,
    {
        let (now, mut asked) = mpsc::channel::<oneshot::Sender<()>>(1);
        tokio::spawn(async move {
            let began = Utc::now();
            let mut rounds = interval_at(Instant::now() + every, every);
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut said: Option<Instant> = None;
            loop {
                let done = tokio::select! {
                    _ = rounds.tick() => None,
                    asked = asked.recv() => match asked {
                        Some(done) => Some(done),
                        None => return,
                    },
                };
                let body = request(&instance, &read().await, began, Utc::now());
                let sent = timeout(LIMIT, post(&endpoint, "v1/metrics", body)).await;
                let problem = sent.unwrap_or_else(|_| Err("it does not answer".to_owned())).err();
                if let Some(problem) = problem
                    && said.is_none_or(|said| said.elapsed() >= SAY_EVERY)
                {
                    said = Some(Instant::now());
                    tracing::warn!(event = "metrics.not_sent", problem, "metrics could not be sent");
                }
                if let Some(done) = done {
                    let _ = done.send(());
                }
            }
        });
        Exporter { now }
    }

    /// Sends what is counted until now, in `limit` at most.
    pub async fn flush(&self, limit: Duration) {
        let (done, sent) = oneshot::channel();
        let flushed = async {
            if self.now.send(done).await.is_ok() {
                let _ = sent.await;
            }
        };
        let _ = timeout(limit, flushed).await;
    }
}

fn request(instance: &str, text: &str, began: DateTime<Utc>, now: DateTime<Utc>) -> Value {
    let metrics: Vec<Value> = families(text).iter().map(|family| family.as_otlp(began, now)).collect();
    json!({"resourceMetrics": [{
        "resource": resource(instance),
        "scopeMetrics": [{"scope": scope(), "metrics": metrics}],
    }]})
}

/// An instrument of an OpenMetrics text.
#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    unit: &'a str,
    samples: Vec<Sample<'a>>,
}

/// A line: what stands behind the family's name, the labels, the value as it is written.
#[derive(Debug)]
struct Sample<'a> {
    suffix: &'a str,
    labels: Vec<(&'a str, String)>,
    value: &'a str,
}

fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(what), Some(name), rest) = (words.next(), words.next(), words.next().unwrap_or_default()) else {
                continue;
            };
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family { name, ..Family::default() });
            }
            let Some(family) = families.last_mut() else { continue };
            match what {
                "HELP" => family.help = rest,
                "TYPE" => family.kind = rest,
                "UNIT" => family.unit = rest,
                _ => {}
            }
        } else if let Some(family) = families.last_mut()
            && let Some(sample) = line.strip_prefix(family.name).and_then(sample)
        {
            family.samples.push(sample);
        }
    }
    families
}

/// `SUFFIX{LABEL="VALUE",…} NUMBER`, with or without labels.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (suffix, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (name, value) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = quoted(value)?;
            labels.push((name, value));
            rest = after;
        }
        rest = &rest[1..];
    }
    Some(Sample { suffix, labels, value: rest.trim() })
}

/// A label's value, read up to its closing quote, and what comes after that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

impl Family<'_> {
    fn as_otlp(&self, began: DateTime<Utc>, now: DateTime<Utc>) -> Value {
        // As the protocol's conventions abbreviate it.
        let unit = if self.unit == "seconds" { "s" } else { self.unit };
        let mut metric = json!({"name": self.name, "description": self.help.trim_end_matches('.'), "unit": unit});
        let point = |sample: &Sample<'_>| {
            let mut point = json!({"attributes": attributes(&sample.labels), "timeUnixNano": nanos(now)});
            match sample.value.parse::<i64>() {
                // 64-bit integers are texts in the protocol's JSON.
                Ok(whole) => point["asInt"] = json!(whole.to_string()),
                Err(_) => point["asDouble"] = json!(number(sample.value)),
            }
            point
        };
        let since = |mut point: Value| {
            point["startTimeUnixNano"] = json!(nanos(began));
            point
        };
        match self.kind {
            "counter" => {
                let points: Vec<Value> = self.samples.iter().map(|sample| since(point(sample))).collect();
                metric["sum"] =
                    json!({"aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points});
            }
            "histogram" => {
                let points: Vec<Value> = self.histograms(now).into_iter().map(since).collect();
                metric["histogram"] = json!({"aggregationTemporality": CUMULATIVE, "dataPoints": points});
            }
            _ => metric["gauge"] = json!({"dataPoints": self.samples.iter().map(point).collect::<Vec<_>>()}),
        }
        metric
    }

    /// One a set of labels. A bucket of the text counts all that is below its bound, one of the protocol what is in it alone.
    fn histograms(&self, now: DateTime<Utc>) -> Vec<Value> {
        let mut by_labels: BTreeMap<Vec<(&str, &str)>, Vec<&Sample<'_>>> = BTreeMap::new();
        for sample in &self.samples {
            let labels = sample.labels.iter().filter(|(name, _)| *name != "le");
            by_labels.entry(labels.map(|(name, value)| (*name, value.as_str())).collect()).or_default().push(sample);
        }
        let histogram = |(labels, samples): (Vec<(&str, &str)>, Vec<&Sample<'_>>)| {
            let of = |suffix: &str| samples.iter().find(|sample| sample.suffix == suffix).map_or("0", |s| s.value);
            let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0_u64);
            for bucket in samples.iter().filter(|sample| sample.suffix == "_bucket") {
                let bound = bucket.labels.iter().find(|(name, _)| *name == "le").map(|(_, bound)| number(bound));
                bounds.extend(bound.filter(|bound| bound.is_finite()));
                let upto: u64 = bucket.value.parse().unwrap_or(below);
                counts.push(upto.saturating_sub(below).to_string());
                below = upto;
            }
            json!({"attributes": attributes(&labels), "timeUnixNano": nanos(now), "count": of("_count"),
                   "sum": number(of("_sum")), "bucketCounts": counts, "explicitBounds": bounds})
        };
        by_labels.into_iter().map(histogram).collect()
    }
}

fn attributes<T: AsRef<str>>(labels: &[(&str, T)]) -> Value {
    labels.iter().map(|(name, value)| json!({"key": name, "value": {"stringValue": value.as_ref()}})).collect()
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().unwrap_or(f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instrument_of_the_text_becomes_one_of_the_protocol() {
        let text = "# HELP pagehand_x Things.\n# TYPE pagehand_x counter\npagehand_x_total{a=\"q\\\"{,}\\n\",b=\"\"} 3\n\
                    # HELP pagehand_y_seconds Times.\n# TYPE pagehand_y_seconds histogram\n# UNIT pagehand_y_seconds seconds\n\
                    pagehand_y_seconds_sum{s=\"a\"} 1.5\npagehand_y_seconds_count{s=\"a\"} 4\n\
                    pagehand_y_seconds_bucket{le=\"0.1\",s=\"a\"} 1\npagehand_y_seconds_bucket{le=\"1.0\",s=\"a\"} 3\n\
                    pagehand_y_seconds_bucket{le=\"+Inf\",s=\"a\"} 4\n\
                    # HELP pagehand_z Now.\n# TYPE pagehand_z gauge\npagehand_z 0.25\n# EOF\n";
        let at: DateTime<Utc> = "2024-01-15T10:30:00Z".parse().unwrap();
        let body = request("me", text, at, at);
        let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
        assert_eq!(metrics.len(), 3, "{metrics:?}");
        let sum = &metrics[0]["sum"];
        assert_eq!((&sum["isMonotonic"], &sum["aggregationTemporality"]), (&json!(true), &json!(2)));
        let point = &sum["dataPoints"][0];
        assert_eq!((&point["asInt"], &point["startTimeUnixNano"]), (&json!("3"), &json!("1705314600000000000")));
        assert_eq!(point["attributes"][0], json!({"key": "a", "value": {"stringValue": "q\"{,}\n"}}));
        assert_eq!((&metrics[1]["unit"], &metrics[1]["name"]), (&json!("s"), &json!("pagehand_y_seconds")));
        let histogram = &metrics[1]["histogram"]["dataPoints"][0];
        assert_eq!(histogram["bucketCounts"], json!(["1", "2", "1"]));
        assert_eq!(histogram["explicitBounds"], json!([0.1, 1.0]));
        assert_eq!((&histogram["count"], &histogram["sum"]), (&json!("4"), &json!(1.5)));
        assert_eq!(metrics[2]["gauge"]["dataPoints"][0]["asDouble"], json!(0.25));
    }
}
