//! The command line turned into values, one subcommand called, the exit code.

use std::process::ExitCode;

use swiftlet::cli::{self, Command};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Run(options)) => cli::run::run(options),
        Ok(Command::Check(options)) => cli::check::check(&options),
        Ok(Command::Demo(options)) => cli::demo::demo(options),
        Ok(Command::Info(options)) => cli::info::info(options),
        Ok(Command::Ring(options)) => cli::ring::ring(&options),
        Ok(Command::Locate(options)) => cli::locate::locate(&options),
        Ok(Command::Status(options)) => cli::status::status(&options),
        Err(error) => cli::refuse(&error),
    }
    .into()
}
