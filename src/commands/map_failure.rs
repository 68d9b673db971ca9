//! `pagehand map-failure`.

use std::io::{BufRead, Read, Write};

use anyhow::Context;
use serde_json::Value;

use crate::cli::MapFailureArgs;
use crate::failure::lines::answer_line;

/// Longest line that is looked at, in bytes; a longer one is an error that does not stop the others.
const MAX_LINE: u64 = 4 << 20;

/// Answers each line of standard input with a line on standard output.
///
/// # Errors
/// A line that is JSON but has no text or an unknown kind; all other lines are answered first.
pub fn run(args: MapFailureArgs) -> anyhow::Result<()> {
    let mut input = std::io::stdin().lock();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut wrong = 0_u64;
    for number in 1_u64.. {
        let mut line = Vec::new();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).context("can't read standard input")? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        match answer_line(text) {
            Ok(answer) if args.json => writeln!(out, "{answer}")?,
            Ok(answer) => writeln!(out, "{}", readable(&answer))?,
            Err(problem) => {
                wrong += 1;
                eprintln!("line {number}: {problem}");
                // A line out for each line in, so that answers can be told apart by position.
                if args.json {
                    writeln!(out, "{}", serde_json::json!({"error": problem, "line": number}))?;
                }
            }
        }
    }
    out.flush()?;
    anyhow::ensure!(wrong == 0, "{wrong} lines could not be read");
    Ok(())
}

fn readable(answer: &Value) -> String {
    let (Some(reason), Some(code)) = (answer["failure_reason"].as_str(), answer["failure_code"].as_str()) else {
        return "no failure".to_owned();
    };
    let retried = match (answer["retryable"].as_bool(), answer["retry_after"].as_u64()) {
        (Some(true), Some(seconds)) => format!("retried after {seconds} s"),
        (Some(true), None) => "retried".to_owned(),
        _ => "not retried".to_owned(),
    };
    format!("{reason}  {code}  {retried}")
}
