//! The command line: one command, one function.

use std::process::ExitCode;

use clap::Parser;
use pagehand::cli::{Cli, Command};
use pagehand::commands;
use pagehand::commands::LogReader::{Caller, Operator};

fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    let config = config.as_deref();
    commands::finish(match command {
        Command::Demo(args) => commands::run(config, Caller, |config| commands::demo::run(config, args)),
        Command::Migrate(args) => commands::run(config, Caller, |config| commands::migrate::run(config, args)),
        Command::Worker(args) => commands::run(config, Operator, |config| commands::worker::run(config, args)),
        Command::Serve(args) => commands::run(config, Operator, |config| commands::serve::run(config, args)),
        Command::Enqueue(args) => commands::run(config, Caller, |config| commands::enqueue::run(config, args)),
        Command::Site(args) => commands::run(config, Caller, |config| commands::site::run(config, args)),
        Command::Proxy(args) => commands::run(config, Caller, |config| commands::proxy::run(config, args)),
        Command::Runs(args) => commands::run(config, Caller, |config| commands::runs::run(config, args)),
        Command::Top(args) => commands::run(config, Caller, |config| commands::top::run(config, args)),
        Command::Inspect(args) => commands::run(config, Caller, |config| commands::inspect::run(config, args)),
        Command::MapFailure(args) => commands::map_failure::run(args),
        Command::Doctor(args) => commands::run(config, Caller, |config| commands::doctor::run(config, args)),
    })
}
