//! `experiment`: a plan's runs, each in a process of its own, and what they say.

mod child;
mod folder;
mod gpus;
mod job;
mod report;
mod run;

use anyhow::Result;

use crate::args;

pub(crate) fn run(args: &args::Experiment) -> Result<()> {
    match args {
        args::Experiment::Run(args) => run::run(args),
        args::Experiment::Report(args) => report::run(args),
    }
}
