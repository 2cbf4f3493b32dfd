//! What was typed for `experiment`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sixpack_runtime::Device;

use super::Machine;

/// `experiment …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Experiment {
    /// Run a plan, or go on with it: each run in a process of its own
    Run(ExperimentRun),
    /// What the runs say of each arm, with intervals: text, Markdown or a page
    Report(ExperimentReport),
}

/// `experiment run`.
#[derive(Debug, Args)]
pub(crate) struct ExperimentRun {
    /// The plan: a baseline, arms as changes to its recipe, seeds and a budget for each run
    #[arg(value_name = "PLAN.toml")]
    pub(crate) plan: PathBuf,
    /// Folder of token shards, with validation shards and a tokenizer (default: the plan's)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Folder for results.tsv, results.json and what each run leaves; the same again goes on
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// One of the plan's scales
    #[arg(long, value_name = "NAME")]
    pub(crate) scale: Option<String>,
    /// Runs at once, which share the threads; with --device cuda each has a GPU, so many there should be
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: u16,
    /// Run those again that crashed before
    #[arg(long)]
    pub(crate) retry_crashed: bool,
    /// Keep the checkpoint of each run
    #[arg(long)]
    pub(crate) keep_checkpoints: bool,
    /// Check the plan and the data, say what would be run, and run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// What scores the models: auto, cpu, wgpu[:N] or cuda[:N], which also trains them (others are trained on the CPU);
    /// one and the same for all runs
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub(crate) device: Device,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// `experiment report`.
#[derive(Debug, Args)]
pub(crate) struct ExperimentReport {
    /// Folder with the results.json of an experiment
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Write it to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Form (default: what the name of --out ends with, else text)
    #[arg(long, value_enum)]
    pub(crate) format: Option<ReportFormat>,
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["format", "out"])]
    pub(crate) json: bool,
}

/// Forms of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// One page with pictures, nothing from elsewhere
    Html,
    /// Plain tables
    Text,
    /// The same tables for Markdown
    Markdown,
}
