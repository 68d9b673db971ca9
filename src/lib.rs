//! Pagehand: a worker daemon that carries comment and registration tasks from a Postgres queue through headless
//! Chrome on enrolled sites, and leaves a full record of each.
//!
//! The map, a line a module; `ARCHITECTURE.md` says which may use which:

pub mod automation; // trait, registry, comment, registration; forms; obstacles; the submit gate's page side
pub mod browser; // all Chrome: process, protocol, pool, tab, frames, elements, egress proxy
pub mod cli; // what the command line takes
pub mod commands; // what each command does
pub mod config; // the configuration file, the environment over it, references to secrets
pub mod cost; // the price table, and sums by it
pub mod demo; // the built-in demo site
pub mod devdb; // the private Postgres
pub mod failure; // the eleven reasons; the mapper
mod fault; // places where tests end or fail the process, absent from ordinary builds
pub mod llm; // asks a language model
pub mod mailbox; // waits for a site's mail, finds the link or code in it
pub mod observability; // log lines; in which text format counters are served
pub mod otlp; // sends traces to a collector
pub mod queue; // all SQL: tasks, leases, fences, sites, proxies, runs
pub mod record; // steps and artifacts in the shape that rows, files and answers share
pub mod retry; // when a failed attempt is repeated
pub mod seal; // encrypts what tasks keep secret in rows
pub mod site; // origins, enrolments, private addresses, profiles
pub mod task; // what the queue holds
pub mod telemetry; // the record on disk
pub mod tls; // TLS as a client
pub mod web; // HTTP API and dashboard
pub mod worker; // claim → attempt → record → settle
