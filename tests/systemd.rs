//! The units as systemd itself judges them. Skipped, with a word about it, where systemd's tools are not installed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

/// The units in a directory of their own, with a program that exists here, and one instance of the template.
fn units() -> tempfile::TempDir {
    let copies = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(shipped("")).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        let text = fs::read_to_string(entry.path()).unwrap().replace("/usr/bin/pagehand", "/bin/true");
        let name = entry.file_name().into_string().unwrap().replace("@.service", "@1.service");
        fs::write(copies.path().join(name), text).unwrap();
    }
    copies
}

/// Exit status and all output; None where the tool is missing.
fn run(tool: &str, arguments: &[&str], place: &Path) -> Option<(bool, String)> {
    match Command::new(tool).args(arguments).current_dir(place).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(_) => {
            eprintln!("skipped: {tool} is not installed (Debian: apt-get install systemd)");
            None
        }
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let units = units();
    let mut names: Vec<String> = fs::read_dir(units.path())
        .unwrap()
        .map(|entry| format!("./{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(names.iter().map(String::as_str));
    if let Some((good, said)) = run("systemd-analyze", &arguments, units.path()) {
        assert!(good && said.trim().is_empty(), "{said}");
    }
}

#[test]
fn each_unit_is_as_closed_as_its_work_allows() {
    let units = units();
    // Exposure, times ten: 0 is closed, 100 is what a unit without any of it has.
    for (unit, worst) in [("pagehand-worker@1", 25), ("pagehand-web", 15), ("pagehand-migrate", 15)] {
        let threshold = format!("--threshold={worst}");
        let unit = format!("./{unit}.service");
        if let Some((good, said)) =
            run("systemd-analyze", &["security", "--offline=yes", "--no-pager", &threshold, &unit], units.path())
        {
            assert!(good, "{said}");
        }
    }
}

#[test]
fn the_users_that_the_units_name_are_those_that_are_created() {
    let created = fs::read_to_string(shipped("sysusers.d/pagehand.conf")).unwrap();
    for unit in ["pagehand-worker@.service", "pagehand-web.service", "pagehand-migrate.service"] {
        let text = fs::read_to_string(shipped(unit)).unwrap();
        let user = text.lines().find_map(|line| line.strip_prefix("User=")).unwrap();
        assert!(created.lines().any(|line| line.split_whitespace().take(2).eq(["u", user])), "{unit}: {user}");
    }
    if let Some((good, said)) =
        run("systemd-sysusers", &["--dry-run", shipped("sysusers.d/pagehand.conf").to_str().unwrap()], Path::new("/"))
    {
        assert!(good, "{said}");
    }
}

#[test]
fn a_worker_is_given_longer_to_stop_than_its_tasks_are_given_to_end() {
    let text = fs::read_to_string(shipped("pagehand-worker@.service")).unwrap();
    let setting = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    // worker.drain_seconds is 120 where nothing else is said.
    assert!(setting("TimeoutStopSec=").parse::<u32>().unwrap() >= 120 + 20);
    assert_eq!(setting("KillMode="), "mixed");
    assert_eq!(setting("Type="), "notify");
}
