//! Holds the modules to the order that `ARCHITECTURE.md` draws, and to its invariants.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and the modules it may use. A module that is not listed may not exist.
const MAY_USE: &[(&str, &[&str])] = &[
    ("task", &[]),
    ("failure", &[]),
    ("fault", &[]),
    ("retry", &[]),
    ("record", &[]),
    ("cost", &[]),
    ("tls", &[]),
    ("llm", &["cost", "tls"]),
    ("config", &["cost", "retry"]),
    ("observability", &["record"]),
    ("devdb", &[]),
    ("otlp", &["record"]),
    ("site", &["config", "record"]),
    ("mailbox", &["config", "failure", "tls"]),
    ("seal", &["fault", "task"]),
    ("queue", &["failure", "fault", "record", "retry", "seal", "site", "task"]),
    ("browser", &["failure", "fault", "record", "site", "tls"]),
    ("telemetry", &["failure", "fault", "record", "task"]),
    (
        "automation",
        &["browser", "config", "cost", "failure", "fault", "llm", "mailbox", "record", "site", "task", "telemetry"],
    ),
    ("web", &["config", "failure", "observability", "queue", "record", "seal", "site", "task", "telemetry"]),
    (
        "worker",
        &[
            "automation",
            "browser",
            "config",
            "cost",
            "failure",
            "fault",
            "llm",
            "mailbox",
            "observability",
            "otlp",
            "queue",
            "record",
            "retry",
            "seal",
            "site",
            "task",
            "telemetry",
        ],
    ),
    ("demo", &["failure"]),
    ("cli", &["failure", "queue", "site", "task"]),
    (
        "commands",
        &[
            "automation",
            "browser",
            "cli",
            "config",
            "cost",
            "demo",
            "devdb",
            "failure",
            "llm",
            "observability",
            "otlp",
            "queue",
            "record",
            "retry",
            "seal",
            "site",
            "task",
            "telemetry",
            "web",
            "worker",
        ],
    ),
    ("main", &["cli", "commands"]),
];

/// Words that may stand in the code of some modules only, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("sqlx::", &["queue"], "all SQL is in the queue"),
    ("chromiumoxide", &["browser"], "the protocol of Chrome stays behind the browser"),
    ("backoff::", &["retry"], "so that it can be swapped in an hour"),
    ("tokio_postgres", &[], "there is one way to Postgres"),
    ("--no-sandbox", &["browser"], "Chrome without a sandbox is one setting in one place"),
];

#[test]
fn modules_use_only_what_is_below_them() {
    let may_use: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let module = module_of(&file);
        let Some(allowed) = may_use.get(module.as_str()) else {
            wrong.push(format!(
                "{}: module `{module}` is not in the map; add it to ARCHITECTURE.md and here",
                file.display()
            ));
            continue;
        };
        for used in uses(&code) {
            if used != module && may_use.contains_key(used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: `{module}` uses `{used}`, which is not below it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_belongs_to_one_module_stays_in_it() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let module = module_of(&file);
        for (word, homes, why) in ONLY_IN {
            if code.contains(word) && !homes.contains(&module.as_str()) {
                wrong.push(format!("{}: `{word}` does not belong here: {why}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_map_has_no_module_that_is_gone() {
    let modules: Vec<String> = sources().iter().map(|(file, _)| module_of(file)).collect();
    for (module, _) in MAY_USE {
        assert!(modules.iter().any(|found| found == module), "`{module}` is in the map but not in src/");
    }
}

#[test]
fn architecture_md_names_every_module() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    for (module, _) in MAY_USE {
        assert!(
            text.contains(&format!("`{module}`")) || text.contains(&format!("{module}.rs")),
            "ARCHITECTURE.md says nothing of `{module}`"
        );
    }
}

/// `make chaos-guards` takes long, and would only then find a test that was renamed or moved.
#[test]
fn every_test_that_proves_a_guard_is_there() {
    let table = fs::read_to_string(root().join("tests/chaos/guards.rs")).unwrap();
    let entry = regex::Regex::new(r#"(Test|Unit)\(\s*"([\w/]+)",\s*"(\w+)",?\s*\)"#).unwrap();
    let named: Vec<[&str; 3]> = entry.captures_iter(&table).map(|found| found.extract().1).collect();
    assert!(named.len() >= 20, "the table is written in another way: {named:?}");
    for [kind, path, name] in named {
        let place = format!("{}/{path}.rs", if kind == "Unit" { "src" } else { "tests" });
        let text = fs::read_to_string(root().join(&place)).unwrap_or_default();
        assert!(text.contains(&format!("fn {name}(")), "{place} has no test {name}");
    }
}

#[test]
fn every_test_that_attacks_md_names_is_there() {
    let text = fs::read_to_string(root().join("docs/ATTACKS.md")).expect("docs/ATTACKS.md is there");
    let named: Vec<(&str, &str)> = text.split('`').filter_map(|word| word.split_once(".rs::")).collect();
    assert!(named.len() > 40, "{}", named.len());
    for (file, test) in named {
        let code = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        assert!(code.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
    }
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let code = "use crate::queue::{Queue, Lease};\nuse crate::{task, retry::RetryPolicy};\nuse pagehand::cli::Cli;\nlet x = crate::site::refusal();";
    let mut found = uses(code);
    found.sort();
    assert_eq!(found, ["cli", "queue", "retry", "site", "task"]);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file with its code, comments and unit tests left out.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut dirs = vec![root().join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources can be read");
                files.push((path, code_only(&text)));
            }
        }
    }
    assert!(files.len() > 10, "sources are found");
    files
}

fn code_only(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// `src/queue/claim.rs` and `src/queue.rs` are both of module `queue`.
fn module_of(file: &Path) -> String {
    let relative = file.strip_prefix(root().join("src")).expect("files are below src");
    let first = relative.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    match first.trim_end_matches(".rs") {
        "lib" => "main".to_owned(),
        name => name.to_owned(),
    }
}

/// Modules named after `crate::` or `use pagehand::`, alone or in braces.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "use pagehand::"] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            let list = match rest.strip_prefix('{') {
                Some(inner) => top_level_items(inner),
                None => vec![rest.to_owned()],
            };
            for item in list {
                let name: String = item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !name.is_empty() && !found.contains(&name) {
                    found.push(name);
                }
            }
        }
    }
    found
}

fn top_level_items(inner: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    items.push(item);
    items
}
