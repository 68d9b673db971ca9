//! What the command line takes. What it does is in [`crate::commands`].

use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::failure::FailureReason;
use crate::queue::{Cursor, Only, instant_from, instant_to, time_from, time_to};
use crate::site::{Origin, QuietHours, check_contact};
use crate::task::{TaskId, TaskStatus};

/// Works off comment and registration tasks in headless Chrome, and leaves a full record of each.
#[derive(Debug, Parser)]
#[command(name = "pagehand", version, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    /// The configuration; without it PAGEHAND_CONFIG, else config/pagehand.toml where there is one
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Work off tasks of every outcome against a built-in demo site, on a Postgres of its own
    Demo(DemoArgs),
    /// Bring the database schema up to date
    Migrate(MigrateArgs),
    /// Work off tasks
    Worker(WorkerArgs),
    /// Serve the HTTP API and the dashboard
    Serve(ServeArgs),
    /// Add tasks; prints their ids
    Enqueue(EnqueueArgs),
    /// Enrol sites: Pagehand acts on no other
    Site(SiteArgs),
    /// Manage proxies
    Proxy(ProxyArgs),
    /// See, follow, retry, cancel and export runs
    Runs(RunsArgs),
    /// Workers with what each is doing, the queue, and the last failures, live
    Top(TopArgs),
    /// Say which forms pages have, which field is what, and what is in the way; sends nothing
    Inspect(InspectArgs),
    /// Say what the failure mapper makes of texts, one a line, from standard input
    MapFailure(MapFailureArgs),
    /// Check Chrome, its sandbox, Postgres, the runs directory and the clock; says how to mend each
    Doctor(JsonArgs),
}

/// `--json` and nothing else.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `pagehand demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Tasks at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub concurrency: u32,
    /// Then serve the dashboard over it at web.listen, until stopped
    #[arg(long)]
    pub serve: bool,
    /// Only one task, which times out through all its retries; then retry it, or with --serve leave that to you
    #[arg(long)]
    pub failed_run: bool,
}

/// `pagehand migrate`
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Also make the roles pagehand_worker and pagehand_web, each with no more rights than it needs
    #[arg(long)]
    pub roles: bool,
    /// Also encrypt with secrets.key the passwords that are in the clear or under an older key
    #[arg(long)]
    pub reseal: bool,
}

/// `pagehand worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// End when nothing is pending or running any more, waiting retries included
    #[arg(long)]
    pub drain: bool,
    /// Tasks at once; without it worker.concurrency
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub concurrency: Option<u32>,
    /// Name of this worker, the same after a restart; without it host name and process id
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
}

/// `pagehand serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; any but loopback needs web.tokens. Without it web.listen
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub listen: Option<SocketAddr>,
}

/// `pagehand enqueue`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "A line of a file is one task:\n  {\"task_type\":\"comment\",\"url\":\"https://…\",\"campaign_id\":1,\"payload\":{\"author\":\"…\",\"email\":\"…\",\"body\":\"…\"},\n   \"max_retries\":3,\"priority\":0,\"run_at\":null,\"dedupe_key\":null}"
)]
pub struct EnqueueArgs {
    /// A comment or a registration.
    #[command(subcommand)]
    pub task: Option<EnqueueTask>,
    /// One task a line, as JSON; `-` is standard input
    #[arg(long, value_name = "FILE", required = true)]
    pub file: Option<PathBuf>,
    /// Take the good lines of a file and report the others; without it one bad line means that none is taken
    #[arg(long, requires = "file")]
    pub skip_invalid: bool,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// One task on the command line.
#[derive(Debug, Subcommand)]
pub enum EnqueueTask {
    /// Post a comment
    Comment {
        /// What every task has.
        #[command(flatten)]
        task: TaskArgs,
        /// Name to sign with
        #[arg(long)]
        author: String,
        /// Address to leave
        #[arg(long)]
        email: String,
        /// Web page to leave
        #[arg(long)]
        website: Option<String>,
        /// The text
        #[arg(long)]
        body: String,
    },
    /// Create an account
    Registration {
        /// What every task has.
        #[command(flatten)]
        task: TaskArgs,
        /// Name to log in with
        #[arg(long)]
        username: String,
        /// Address of the account
        #[arg(long)]
        email: String,
        /// Password of the account: env:NAME or file:PATH, read now; a literal is seen by everybody on this machine
        #[arg(long, value_name = "REF")]
        password: String,
        /// Given name
        #[arg(long)]
        first_name: Option<String>,
        /// Family name
        #[arg(long)]
        last_name: Option<String>,
        /// Telephone number
        #[arg(long)]
        phone: Option<String>,
        /// Date of birth, for example 1990-05-17
        #[arg(long, value_name = "DATE")]
        birthdate: Option<String>,
        /// Country, by the name or code in the site's own list
        #[arg(long)]
        country: Option<String>,
    },
}

/// What every task has.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("page").required(true).args(["url", "page_url"])))]
pub struct TaskArgs {
    /// The page to act on
    #[arg(value_name = "URL")]
    pub page_url: Option<String>,
    /// The page to act on
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Your own grouping
    #[arg(long)]
    pub campaign_id: Option<i64>,
    /// How often a failed attempt is repeated; without it retry.max_retries
    #[arg(long)]
    pub max_retries: Option<u32>,
    /// Higher goes first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i16,
    /// Not before this time, for example 2024-01-15T10:30:00Z
    #[arg(long, value_parser = instant_from)]
    pub run_at: Option<DateTime<Utc>>,
    /// At most one live task has this key
    #[arg(long)]
    pub dedupe_key: Option<String>,
}

/// `pagehand site`.
#[derive(Debug, Args)]
pub struct SiteArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SiteCommand,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done with sites.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// Enrol a site, or change its enrolment
    Add {
        /// Scheme, host and port, for example https://example.org; https://*.example.org is every host under that name
        origin: String,
        /// Who allowed Pagehand to act there
        #[arg(long, value_name = "WHO")]
        authorized_by: String,
        /// Until when, for example 2027-01-31 (to the end of that day, UTC) or 2027-01-31T12:00:00Z
        #[arg(long, value_name = "DATE", value_parser = instant_to)]
        until: Option<DateTime<Utc>>,
        /// Allow an address that is not on the public internet
        #[arg(long)]
        allow_private: bool,
        /// Tasks at once, over all workers
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        max_concurrency: Option<u32>,
        /// Tasks begun in a minute, over all workers
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        per_minute: Option<u32>,
        /// Only for this type of task; may be given several times
        #[arg(long = "task-type", value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(crate::task::TASK_TYPES))]
        task_types: Vec<String>,
        /// Whom the site may ask, in the User-Agent in place of worker.contact
        #[arg(long, value_name = "ADDRESS", value_parser = check_contact)]
        contact: Option<String>,
        /// When nothing is begun there, for example "22:00-06:00 Europe/Berlin"; without a time zone UTC
        #[arg(long, value_name = "HH:MM-HH:MM [ZONE]")]
        quiet_hours: Option<QuietHours>,
        /// Whether pages that its robots.txt keeps from us are left alone; `ignore` needs the word of who authorised the rest
        #[arg(long, value_enum, default_value_t = RobotsRule::Respect)]
        robots: RobotsRule,
        /// What is pinned for the site, as config/site-profile.toml shows; without it an earlier profile stays
        #[arg(long, value_name = "FILE")]
        profile: Option<PathBuf>,
    },
    /// Store what is pinned for a site: selectors, fields, steps, texts, mailbox; without FILE print what is stored
    Profile {
        /// Scheme, host and port
        origin: String,
        /// The profile; an empty file removes it
        file: Option<PathBuf>,
    },
    /// Have all workers leave a site alone: nothing is begun there, attempts under way submit nothing, its tasks wait
    Stop {
        /// Scheme, host and port
        origin: String,
        /// Why, for whoever comes next
        #[arg(long, value_name = "TEXT", default_value = "stopped by hand")]
        why: String,
    },
    /// Let the tasks of a stopped site go on
    Resume {
        /// Scheme, host and port
        origin: String,
    },
    /// List the enrolled sites
    Ls,
    /// End an enrolment
    Rm {
        /// Scheme, host and port
        origin: String,
    },
}

/// What a site's robots.txt is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RobotsRule {
    /// Pages that it keeps from us are not opened
    Respect,
    /// They are opened all the same
    Ignore,
}

/// `pagehand proxy`.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ProxyCommand,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done with proxies.
#[derive(Debug, Subcommand)]
pub enum ProxyCommand {
    /// Add a proxy
    Add {
        /// http://HOST:PORT or socks5://HOST:PORT, with USER@ before the host where it wants one
        url: String,
        /// Only for this site; without it for all
        #[arg(long, value_name = "ORIGIN")]
        site: Option<String>,
        /// Where its password is: env:NAME or file:PATH
        #[arg(long, value_name = "REF")]
        password: Option<String>,
    },
    /// List the proxies
    Ls,
    /// Remove a proxy
    Rm {
        /// Its number, as `proxy ls` shows it
        id: i64,
    },
}

/// `pagehand runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RunsCommand,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// List runs, the newest first
    Ls {
        /// Which ones.
        #[command(flatten)]
        filter: FilterArgs,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
        /// Go on where an earlier list ended
        #[arg(long)]
        cursor: Option<Cursor>,
    },
    /// Show one run with its attempts and steps
    Show {
        /// Its number
        id: TaskId,
    },
    /// Give dead letters another try
    Retry {
        /// Their numbers
        #[arg(required_unless_present = "all")]
        ids: Vec<TaskId>,
        /// All failed runs that the filter selects
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Which ones of all.
        #[command(flatten)]
        filter: FilterArgs,
        /// Also where the submission may have arrived: it may be done a second time
        #[arg(long)]
        confirm_uncertain: bool,
    },
    /// Print attempts as they begin and end, until stopped; with --json one object a line
    Tail,
    /// Call tasks off
    Cancel {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<TaskId>,
    },
    /// Write index.html into a runs directory: all its runs with links to their reports; opens from disk
    Index {
        /// The directory; without it runs.dir
        dir: Option<PathBuf>,
    },
    /// Write runs, each as `runs show --json` prints it, or as a row of a table
    Export {
        /// Which ones.
        #[command(flatten)]
        filter: FilterArgs,
        /// As JSON lines with attempts and steps, or as CSV without
        #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
        format: ExportFormat,
        /// Where to; without it standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// How runs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// A JSON object a line.
    Jsonl,
    /// A table for spreadsheets.
    Csv,
}

/// `pagehand top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print it once, and end
    #[arg(long)]
    pub once: bool,
    /// Print one JSON object, and end
    #[arg(long)]
    pub json: bool,
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,
}

/// Which runs are meant; filters add up.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// pending, running, completed, failed or cancelled
    #[arg(long)]
    pub status: Option<TaskStatus>,
    /// One of the eleven
    #[arg(long)]
    pub failure_reason: Option<FailureReason>,
    /// Finer than the reason, for example http.429
    #[arg(long)]
    pub failure_code: Option<String>,
    /// comment or registration
    #[arg(long)]
    pub task_type: Option<String>,
    /// Origin, for example https://example.org
    #[arg(long)]
    pub site: Option<Origin>,
    /// Enqueued at or after this time, or day in UTC, or so long ago: 24h, 7d
    #[arg(long, value_parser = parse_from)]
    pub since: Option<DateTime<Utc>>,
    /// Enqueued before this time, or by the end of this day in UTC, or so long ago
    #[arg(long, value_parser = parse_to)]
    pub until: Option<DateTime<Utc>>,
    /// Part of the URL or of the error, or an id
    #[arg(long)]
    pub q: Option<String>,
    /// With at least so many attempts before the latest
    #[arg(long)]
    pub min_retries: Option<u32>,
    /// In one of whose attempts the step of this name failed, for example find_form
    #[arg(long)]
    pub failed_step: Option<String>,
    /// In one of whose attempts a step of this name was taken; with --min-retries in one after so many others
    #[arg(long)]
    pub step: Option<String>,
    /// Dead letters that failed at this step; `none`: of which no step says where
    #[arg(long)]
    pub stuck_at: Option<String>,
    /// executed (an attempt has ended), wasted (money went into attempts that failed), ready or scheduled
    #[arg(long)]
    pub only: Option<Only>,
    /// In none of these, with commas between them
    #[arg(long, value_delimiter = ',')]
    pub not_status: Vec<TaskStatus>,
    /// None of these reasons
    #[arg(long, value_delimiter = ',')]
    pub not_failure_reason: Vec<FailureReason>,
    /// None of these codes
    #[arg(long, value_delimiter = ',')]
    pub not_failure_code: Vec<String>,
    /// None of these task types
    #[arg(long, value_delimiter = ',')]
    pub not_task_type: Vec<String>,
    /// None of these origins
    #[arg(long, value_delimiter = ',')]
    pub not_site: Vec<Origin>,
}

/// `pagehand inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "A dry run: any page may be inspected, enrolled or not, because nothing is filled in, pressed or sent. A page's own \
                  scripts run as in any visit.\n\nA file is a saved page. It is shown to Chrome without scripts and without network, at an \
                  address that says nothing of its name.\n\nA selector is CSS for its document; `A >>> B` is B in the open shadow root of A. \
                  `frame` in the JSON lists the selectors of the frame elements, the outermost first; a field with `\"later\":true` can't be \
                  filled in as the page is now, but in a further step or once the form is unfolded. Status 1: a page could \
                  not be inspected."
)]
pub struct InspectArgs {
    /// Addresses, or files with saved pages
    #[arg(required = true, value_name = "URL|FILE")]
    pub pages: Vec<String>,
    /// Write a picture of the page with its forms boxed and named; of several pages OUT-1.png, OUT-2.png, …
    #[arg(long, value_name = "OUT.png")]
    pub screenshot: Option<PathBuf>,
    /// Also look at pages inside one's own network; those of this machine's loopback need no leave
    #[arg(long)]
    pub allow_private: bool,
    /// Print a site profile to start from, with what was found pinned
    #[arg(long, conflicts_with = "json")]
    pub profile: bool,
    /// Print one JSON object a page
    #[arg(long)]
    pub json: bool,
}

/// `pagehand map-failure`.
#[derive(Debug, Args)]
#[command(after_help = "A line is a text, or JSON {\"text\":…,\"kind\":\"net|cdp|exception|http|page\"}.")]
pub struct MapFailureArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// An address with its port; `localhost` is 127.0.0.1.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| "write it like 127.0.0.1:8080 or [::1]:8080".to_owned())
}

fn parse_from(text: &str) -> Result<DateTime<Utc>, &'static str> {
    time_from(text, Utc::now())
}

fn parse_to(text: &str) -> Result<DateTime<Utc>, &'static str> {
    time_to(text, Utc::now())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn enqueue_takes_a_file_or_a_task_but_not_neither() {
        assert!(Cli::try_parse_from(["pagehand", "enqueue", "--file", "x", "--skip-invalid"]).is_ok());
        let comment = ["pagehand", "enqueue", "comment", "--author", "a", "--email", "e", "--body", "b", "--json"];
        assert!(Cli::try_parse_from(comment.iter().chain(&["http://x/"])).is_ok());
        assert!(Cli::try_parse_from(comment.iter().chain(&["--url", "http://x/"])).is_ok());
        assert!(Cli::try_parse_from(comment).is_err(), "no url");
        assert!(Cli::try_parse_from(["pagehand", "enqueue"]).is_err());
    }

    #[test]
    fn an_address_to_listen_on_has_a_port_and_may_be_localhost() {
        assert_eq!(parse_address("localhost:8080"), Ok(SocketAddr::from(([127, 0, 0, 1], 8080))));
        assert!(parse_address("[::1]:0").is_ok());
        for wrong in ["localhost", "8080", "example.org:80", "127.0.0.1"] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_enrolment_lasts_to_the_end_of_the_day_it_names() {
        assert_eq!(instant_to("2027-01-31").unwrap().to_rfc3339(), "2027-02-01T00:00:00+00:00");
        assert!(instant_to("soon").is_err());
    }
}
