//! `devices`: what there is to run a model on.

use anyhow::Result;
use serde::Serialize;
use sixpack_formats::ModelConfig;
use sixpack_runtime::cuda::{Libraries, Library, Places};
use sixpack_runtime::device::{Adapter, Survey, survey};
use sixpack_runtime::now;

use crate::args;
use crate::loaded;
use crate::say::say;
use crate::table::{render, thousands};

pub(crate) fn run(args: &args::Devices) -> Result<()> {
    let config = match &args.model {
        Some(path) => loaded::open(path)?.model.config,
        None => ModelConfig::record(),
    };
    let survey = now(survey(&config, args.machine.threads()))?;
    let libraries = Libraries::find(&Places::usual());
    if args.json {
        say!("{}", serde_json::to_string(&Report::new(&survey, &libraries))?);
    } else {
        crate::say::write(format_args!("{}", lines(&survey, &libraries)));
    }
    Ok(())
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    cpu: Cpu,
    adapters: Vec<Gpu<'a>>,
    cuda: Cuda<'a>,
    auto: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Cpu {
    threads: usize,
    tokens_per_second: f64,
}

/// What of CUDA there is.
#[derive(Debug, Serialize)]
struct Cuda<'a> {
    found: Vec<Found<'a>>,
    missing: Vec<Missing<'a>>,
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    what: &'a str,
    path: String,
    version: &'a str,
}

#[derive(Debug, Serialize)]
struct Missing<'a> {
    what: &'a str,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct Gpu<'a> {
    device: String,
    name: &'a str,
    backend: &'a str,
    kind: &'a str,
    driver: &'a str,
    max_binding_bytes: u64,
    max_workgroup_size: u32,
    max_workgroup_bytes: u32,
    subgroup_size: [u32; 2],
    features: &'a [String],
    specialisations: &'a [String],
    self_check: &'static str,
    largest_difference: Option<f32>,
    tokens_per_second: Option<f64>,
    error: Option<&'a str>,
}

impl<'a> Report<'a> {
    fn new(survey: &'a Survey, libraries: &'a Libraries) -> Self {
        let found = |l: &'a Library| Found { what: l.what, path: l.path.display().to_string(), version: &l.version };
        let missing = libraries.missing.iter().map(|(what, why)| Missing { what, why });
        Self {
            cpu: Cpu { threads: survey.threads, tokens_per_second: survey.cpu },
            adapters: survey.adapters.iter().map(Gpu::new).collect(),
            cuda: Cuda { found: libraries.found.iter().map(found).collect(), missing: missing.collect() },
            auto: survey.choice.device.to_string(),
            why: survey.choice.to_string(),
        }
    }
}

impl<'a> Gpu<'a> {
    fn new(adapter: &'a Adapter) -> Self {
        let facts = &adapter.facts;
        let speed = adapter.speed.as_ref();
        Self {
            device: adapter.device.to_string(),
            name: &facts.name,
            backend: &facts.backend,
            kind: &facts.kind,
            driver: &facts.driver,
            max_binding_bytes: facts.max_binding_bytes,
            max_workgroup_size: facts.max_workgroup_size,
            max_workgroup_bytes: facts.max_workgroup_bytes,
            subgroup_size: facts.subgroup_size,
            features: &facts.features,
            specialisations: &facts.specialisations,
            self_check: if adapter.check.is_ok() { "passed" } else { "failed" },
            largest_difference: adapter.check.as_ref().ok().copied(),
            tokens_per_second: speed.and_then(|s| s.as_ref().ok().copied()),
            error: adapter.check.as_ref().err().or(speed.and_then(|s| s.as_ref().err())).map(String::as_str),
        }
    }
}

fn lines(survey: &Survey, libraries: &Libraries) -> String {
    let mut rows = vec![vec![
        "cpu".to_owned(),
        format!("{} threads", survey.threads),
        "–".into(),
        "the reference".into(),
        format!("{:.0}", survey.cpu),
    ]];
    rows.extend(survey.adapters.iter().map(row));
    let table = render(&["device", "what", "driver", "self-check", "tokens/s"], &rows);
    // These are WebGPU's.
    let limits: String = survey.adapters.iter().filter(|a| a.facts.backend != "cuda").map(limits).collect();
    let cuda = cuda(libraries);
    format!("{table}{limits}{cuda}auto takes {}: {}\n", survey.choice.device, survey.choice)
}

/// What of CUDA was found where, and what is missing.
fn cuda(libraries: &Libraries) -> String {
    let found = libraries.found.iter().map(ToString::to_string);
    let missing = libraries.missing.iter().map(|(what, why)| format!("{what} is missing ({why})"));
    format!("cuda: {}\n", found.chain(missing).collect::<Vec<_>>().join("; "))
}

fn row(adapter: &Adapter) -> Vec<String> {
    let facts = &adapter.facts;
    let (check, speed) = match (&adapter.check, &adapter.speed) {
        (Err(error), _) => (error.clone(), "–".into()),
        (Ok(_), Some(Err(error))) => (error.clone(), "–".into()),
        (Ok(worst), speed) => {
            let speed = speed.as_ref().and_then(|s| s.as_ref().ok());
            (format!("passed, off by {worst:.0e}"), speed.map_or("–".into(), |s| format!("{s:.1}")))
        }
    };
    let what = format!("{} ({}, {})", facts.name, facts.kind, facts.backend);
    vec![adapter.device.to_string(), what, facts.driver.clone(), check, speed]
}

fn limits(adapter: &Adapter) -> String {
    let facts = &adapter.facts;
    let [fewest, most] = facts.subgroup_size;
    let special = match &facts.specialisations[..] {
        [] => "none".into(),
        some => some.join(", "),
    };
    format!(
        "{}: bindings of {} bytes, {} invocations and {} bytes to a workgroup, subgroups of {fewest} to {most}; {}; \
         specialisations on: {special}\n",
        adapter.device,
        thousands(facts.max_binding_bytes),
        facts.max_workgroup_size,
        thousands(facts.max_workgroup_bytes.into()),
        facts.features.join(", "),
    )
}
