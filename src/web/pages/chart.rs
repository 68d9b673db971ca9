//! Counts over time as stacked bars, with the same as a table behind them. Each bar and each number leads to its runs.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::format;
use crate::record::rfc3339;

/// Size of the drawing in its own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 160.0;
/// Times written below it.
const TICKS: usize = 4;

/// One colour of the bars.
pub struct Series {
    pub name: String,
    /// Class of its colour.
    pub class: &'static str,
    /// What `GET /runs` is asked for besides the time; None where no filter says it.
    pub query: Option<String>,
    /// One for each part.
    pub counts: Vec<i64>,
}

/// What the bars are of.
pub struct Chart<'a> {
    pub title: &'a str,
    /// How long each part is, as a word.
    pub unit: &'a str,
    pub length: TimeDelta,
    /// When the parts begin.
    pub parts: Vec<DateTime<Utc>>,
    pub series: Vec<Series>,
}

/// The chart.
pub fn stacked(chart: &Chart) -> Markup {
    let total = |n: usize| chart.series.iter().map(|series| series.counts[n]).sum::<i64>();
    let most = (0..chart.parts.len()).map(total).max().unwrap_or(0);
    html! {
        figure class="chart" {
            figcaption {
                span { (chart.title) " per " (chart.unit) }
                span class="key" {
                    @for series in chart.series.iter().filter(|series| series.counts.iter().any(|n| *n > 0)) {
                        span { span class={ "k " (series.class) } {} (series.name) }
                    }
                }
            }
            @if most == 0 { p class="quiet nothing" { "None in this time." } }
            @else { (drawing(chart, most)) (table(chart)) }
        }
    }
}

fn drawing(chart: &Chart, most: i64) -> Markup {
    let slot = WIDTH / chart.parts.len().max(1) as f64;
    html! {
        div class="plot" {
            div class="y" aria-hidden="true" { span { (format::number(most)) } span { "0" } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label={ (chart.title) " per " (chart.unit) "; the table below has the numbers" } {
                line class="rule" x1="0" x2=(WIDTH) y1="0.5" y2="0.5" {}
                line class="rule" x1="0" x2=(WIDTH) y1=(HEIGHT / 2.0) y2=(HEIGHT / 2.0) {}
                @for (n, at) in chart.parts.iter().enumerate() {
                    g {
                        title { (moment(*at)) @for series in &chart.series { @if series.counts[n] > 0 { "\n" (series.counts[n]) " " (series.name) } } }
                        // The whole slot shows the title, also above a low bar.
                        rect class="slot" x=(format!("{:.1}", n as f64 * slot)) y="0" width=(format!("{slot:.1}")) height=(HEIGHT) {}
                        @for (class, y, height) in bars(chart, n, most) {
                            rect class=(class) x=(format!("{:.1}", (n as f64 + 0.1) * slot)) y=(format!("{y:.1}"))
                                width=(format!("{:.1}", slot * 0.8)) height=(format!("{height:.1}")) {}
                        }
                    }
                }
            }
            div class="x" aria-hidden="true" {
                @for tick in 0..TICKS {
                    @let n = tick * chart.parts.len().saturating_sub(1) / (TICKS - 1);
                    @if let Some(at) = chart.parts.get(n) { span { (short(*at, chart.length)) } }
                }
            }
        }
    }
}

/// Class, upper edge and height of each piece of a bar, from below.
fn bars(chart: &Chart, n: usize, most: i64) -> Vec<(&'static str, f64, f64)> {
    let mut below = 0;
    let scale = HEIGHT / most.max(1) as f64;
    let pieces = chart.series.iter().filter(|series| series.counts[n] > 0).map(|series| {
        below += series.counts[n];
        (series.class, HEIGHT - below as f64 * scale, series.counts[n] as f64 * scale)
    });
    pieces.collect()
}

fn table(chart: &Chart) -> Markup {
    let shown: Vec<&Series> = chart.series.iter().filter(|series| series.counts.iter().any(|n| *n > 0)).collect();
    html! {
        details class="more" {
            summary { "As a table" }
            div class="scroll" tabindex="0" role="region" aria-label={ (chart.title) ", as a table" } {
                table class="plain" {
                    thead {
                        tr { th scope="col" { "From, UTC" } @for series in &shown { th scope="col" class="num" { (series.name) } } }
                    }
                    tbody {
                        @for (n, at) in chart.parts.iter().enumerate().rev() {
                            @let time = format!("since={}&until={}", rfc3339(*at), rfc3339(*at + chart.length));
                            tr {
                                th scope="row" { (at.format("%Y-%m-%d %H:%M")) }
                                @for series in &shown {
                                    td class="num" {
                                        @match &series.query {
                                            _ if series.counts[n] == 0 => { span class="quiet" { "0" } }
                                            Some(query) => { a href={ "/runs?" (time) "&" (query) } { (format::number(series.counts[n])) } }
                                            None => { (format::number(series.counts[n])) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

fn short(at: DateTime<Utc>, length: TimeDelta) -> String {
    let pattern = if length < TimeDelta::days(1) { "%b %-d, %H:%M" } else { "%b %-d" };
    at.format(pattern).to_string()
}

/// A row of small bars without a scale, the latest on the right: for a trend beside a number.
pub fn sparkline(counts: &[i64], label: &str) -> Markup {
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    // One path for all: there may be two hundred of these on a page.
    let bars: Vec<String> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(n, count)| format!("M{} 24v-{:.0}h8V24z", n * 10 + 1, (*count as f64 / most * 24.0).max(2.0)))
        .collect();
    html! {
        svg class="spark" viewBox={ "0 0 " (counts.len() * 10) " 24" } preserveAspectRatio="none" role="img" aria-label=(label) {
            path d=(bars.concat()) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_bar_stand_on_each_other_and_the_highest_bar_fills_the_height() {
        let series =
            |class, counts: &[i64]| Series { name: String::new(), class, query: None, counts: counts.to_vec() };
        let chart = Chart {
            title: "",
            unit: "",
            length: TimeDelta::hours(1),
            parts: vec![Utc::now(); 2],
            series: vec![series("a", &[3, 1]), series("b", &[1, 0])],
        };
        assert_eq!(bars(&chart, 0, 4), [("a", 40.0, 120.0), ("b", 0.0, 40.0)]);
        assert_eq!(bars(&chart, 1, 4), [("a", 120.0, 40.0)]);
    }
}
