//! `experiment run`: everything is checked before the first run; then the runs, and the results after each of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, mpsc};

use anyhow::{Context, Result};
use clap::Parser;
use sixpack_formats::Digest;
use sixpack_formats::shard::Shard;
use sixpack_train::experiment::{Conditions, JSON, Outcome, Plan, Record, Results, Run, TABLE};

use super::folder::Folder;
use super::gpus;
use super::job::{self, Job};
use crate::args::{self, Cli, Verb};
use crate::clock::Clock;
use crate::data;
use crate::misuse::misuse;
use crate::say::say;
use crate::stop::{self, Busy};
use crate::verbs;

pub(crate) fn run(args: &args::ExperimentRun) -> Result<()> {
    let plan = Plan::load(&args.plan, args.scale.as_deref()).map_err(misuse)?;
    let (data, from) = data(&plan, args)?;
    check_arguments(&plan, &data, args)?;
    sixpack_runtime::now(sixpack_runtime::device::present(args.device))?;
    let conditions = conditions(&plan, &data, &from, args)?;
    if args.dry_run {
        list(&plan);
        return Ok(());
    }
    let folder = Folder::open(&args.out)?;
    let known = folder.known(&plan, &conditions, args.retry_crashed)?;
    folder.tidy()?;
    let mut results = Results::new(&plan, conditions);
    let (done, records): (Vec<Run>, Vec<Record>) = known.into_iter().unzip();
    records.into_iter().for_each(|record| results.add(record));
    results.write(folder.root())?;
    let left: Vec<Run> = plan.runs().into_iter().filter(|run| !done.contains(run)).collect();
    let finished = Session { args, plan: &plan, data: &data, folder: &folder }.all(&left, done.len(), &mut results)?;
    folder.tidy()?;
    if args.json {
        say!("{}", super::report::json(&results)?);
    } else {
        crate::say::write(format_args!("{}", super::report::text(&results)));
        let out = args.out.display();
        say!("\n{out}/{TABLE}, {JSON}; a page with pictures: sixpack experiment report {out} --out page.html");
    }
    if finished { Ok(()) } else { Err(stop::Stopped.into()) }
}

/// The folder of shards, and who named it.
fn data(plan: &Plan, args: &args::ExperimentRun) -> Result<(PathBuf, String)> {
    match (&args.data, &plan.data) {
        (Some(path), _) => Ok((path.clone(), "--data".into())),
        (None, Some((path, line))) => Ok((path.clone(), format!("{}, line {line}: data", plan.path().display()))),
        (None, None) => {
            Err(misuse(format!("{}: expected data: name it with --data, or in the plan", plan.path().display())))
        }
    }
}

/// Refuses arguments that the verbs would refuse.
fn check_arguments(plan: &Plan, data: &Path, args: &args::ExperimentRun) -> Result<()> {
    let (device, here) = (args.device.to_string(), Path::new("x"));
    let check = |section: &str, line: Option<usize>, arguments: Vec<OsString>| {
        let line = line.map_or_else(String::new, |line| format!(", line {line}"));
        let refused = |reason: &str| misuse(format!("{}{line}: [{section}]: {reason}", plan.path().display()));
        let parsed = Cli::try_parse_from(std::iter::once("sixpack".into()).chain(arguments)).map_err(|e| {
            let text = e.to_string();
            let first = text.lines().next().unwrap_or_default();
            refused(first.strip_prefix("error: ").unwrap_or(first))
        })?;
        let made = match &parsed.verb {
            Verb::Eval(eval) => plan
                .arms
                .iter()
                .try_for_each(|arm| verbs::eval::options(&eval.windows, arm.recipe.model.eval_seq_len).map(drop)),
            Verb::Sweep(sweep) => verbs::sweep::check(sweep),
            _ => Ok(()),
        };
        made.map_err(|e| refused(&crate::misuse::message(&e)))
    };
    check("eval", plan.eval_line, job::eval_arguments(plan, here, data, &device, 1))?;
    if let Some((_, line)) = plan.compress {
        check("compress", Some(line), job::compress_arguments(plan, here, data, here, &device, 1))?;
    }
    Ok(())
}

/// Opens the data as each run will, and says what identifies them.
fn conditions(plan: &Plan, data: &Path, from: &str, args: &args::ExperimentRun) -> Result<Conditions> {
    let wrong = |reason: String| misuse(format!("{from}: {}: {reason}", data.display()));
    if !data.is_dir() {
        return Err(wrong("expected a folder of token shards, found none".into()));
    }
    let tokenizer =
        data::tokenizer_for(data, None)?.ok_or_else(|| wrong("expected a tokenizer beside the shards".into()))?;
    let digests = |shards: &[Shard]| shards.iter().map(|s| s.digest().to_string()).collect::<Vec<_>>();
    let mut found = None;
    let mut models: Vec<(usize, usize)> =
        plan.arms.iter().map(|arm| (arm.recipe.model.vocab_size, arm.recipe.model.train_seq_len)).collect();
    models.sort_unstable();
    models.dedup();
    for (vocab_size, seq_len) in models {
        let opened = data::open_verified(data, vocab_size, Some(Digest::of(&tokenizer)));
        let dataset = opened.map_err(|e| wrong(crate::misuse::message(&e)))?;
        let shards = dataset.train_shards().map_err(|e| wrong(e.to_string()))?;
        if let Some(short) = shards.iter().find(|s| s.len() <= seq_len) {
            return Err(wrong(format!(
                "{}: expected more than {seq_len} tokens, found {}",
                short.path().display(),
                short.len()
            )));
        }
        if dataset.val_shards().is_empty() {
            return Err(wrong("expected validation shards to score on, found none".into()));
        }
        found.get_or_insert((digests(shards), digests(dataset.val_shards())));
    }
    let (training_data, validation_data) = found.context("a plan has a baseline")?;
    let mut eval = vec!["--device".to_owned(), args.device.to_string()];
    eval.extend(plan.eval.iter().cloned());
    Ok(Conditions {
        tool: concat!("sixpack ", env!("CARGO_PKG_VERSION")).into(),
        training_data,
        validation_data,
        eval,
        compress: plan.compress.as_ref().map(|(c, _)| c.clone()).unwrap_or_default(),
    })
}

/// What would be run.
fn list(plan: &Plan) {
    for run in plan.runs() {
        let arm = plan.arm(run);
        say!("{}, seed {}: {}", arm.id, run.seed, if arm.set.is_empty() { "–".into() } else { arm.set.join(", ") });
    }
}

/// Runs on their way.
struct Session<'a> {
    args: &'a args::ExperimentRun,
    plan: &'a Plan,
    data: &'a Path,
    folder: &'a Folder,
}

impl Session<'_> {
    /// Does the runs that are left, several at once; whether all of them are done.
    fn all(&self, left: &[Run], known: usize, results: &mut Results) -> Result<bool> {
        let stop = stop::on_signal("stopping; runs that are not over will be done again")?;
        let _busy = Busy::begin();
        let mut clock = Clock::new("run", left.len() + known);
        (0..known).for_each(|_| clock.skip());
        let jobs = usize::from(self.args.jobs);
        let job = Job {
            plan: self.plan,
            data: self.data,
            device: self.args.device.to_string(),
            threads: (self.args.machine.threads() / jobs).max(1),
            keep_checkpoints: self.args.keep_checkpoints,
            stop: &stop,
        };
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let gpus = gpus::assigned(self.args.device, jobs, visible.as_deref());
        let (queue, conditions) = (Mutex::new(left.iter()), results.conditions.clone());
        let (sender, receiver) = mpsc::channel();
        let finished = std::thread::scope(|scope| -> Result<usize> {
            for gpu in &gpus {
                let (sender, queue, job, stop, conditions) = (sender.clone(), &queue, &job, &stop, &conditions);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(&run) = queue.lock().unwrap_or_else(|e| e.into_inner()).next() else { return };
                        let done = self.one(run, job, gpu.as_deref(), conditions);
                        let failed = done.is_err();
                        let Some(done) = done.transpose() else { return };
                        if sender.send(done).is_err() || failed {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut finished = 0;
            for done in receiver {
                let record = done.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                let text = line(&record);
                results.add(record);
                results.write(self.folder.root()).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                clock.done(&text);
                finished += 1;
            }
            Ok(finished)
        })?;
        Ok(finished == left.len())
    }

    /// One run from its beginning to its name; `None` if it was stopped.
    fn one(&self, run: Run, job: &Job<'_>, gpu: Option<&str>, conditions: &Conditions) -> Result<Option<Record>> {
        let folder = self.folder.working(self.plan, run)?;
        let Some(record) = job.run(run, &folder, gpu)? else { return Ok(None) };
        self.folder.commit(self.plan, run, &folder, conditions, &record)?;
        Ok(Some(record))
    }
}

/// A run in one line.
fn line(record: &Record) -> String {
    let Record { id, seed, outcome } = record;
    match outcome {
        Outcome::Crash(reason) => format!("{id}, seed {seed}: crash: {reason}"),
        Outcome::Trained(t) => {
            format!("{id}, seed {seed}: {:.5} bits per byte, {:.0} s", t.bits_per_byte, t.measured.seconds)
        }
    }
}
