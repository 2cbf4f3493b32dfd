//! `sweep`: bytes against bits per byte over checkpoints, schemes, codecs and sizes.
//!
//! Each point is one artifact, read back from disk and scored. A finished point is in `points.json` before the next one
//! begins, under a key of everything that decides it, so that an interrupted sweep goes on where it stopped. A folder may
//! be swept several times: the table and the picture have all its points that are scored alike.

mod bench;
mod draw;
mod plan;
mod trainings;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use sixpack_compress::sweep::{self, Measure, Point, Points, Refused};
use sixpack_formats::atomic;

use self::bench::{Bench, Measured};
use self::plan::Plan;
use crate::args;
use crate::clock::Clock;
use crate::say::say;
use crate::table::{render, thousands};

/// What a sweep goes on from.
const POINTS: &str = "points.json";
/// The points for other programs.
const TABLE: &str = "points.csv";
/// The picture.
const PICTURE: &str = "tradeoff.svg";

pub(crate) fn run(args: &args::Sweep) -> Result<()> {
    let plan = Plan::new(args)?;
    args.place.checked()?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let Some(checkpoints) = trainings::checkpoints(args)? else {
        say!("stopped; to go on: the same command again");
        return Ok(());
    };
    let known = Points::read(args.out.join(POINTS))?;
    let mut sweep = Sweep { args, known, measures: Vec::new() };
    let mut clock = Clock::new("point", checkpoints.len() * plan.len());
    for folder in &checkpoints {
        sweep.checkpoint(folder, &plan, &mut clock)?;
    }
    sweep.save()?;
    if args.json {
        say!("{}", serde_json::to_string(&sweep.json())?);
    } else {
        crate::say::write(format_args!("{}", sweep.text()));
    }
    Ok(())
}

/// Refuses what [`run`] would refuse before its first training.
pub(crate) fn check(args: &args::Sweep) -> Result<()> {
    Plan::new(args).map(drop)
}

/// The points of a folder, and what this command measures by.
struct Sweep<'a> {
    args: &'a args::Sweep,
    known: Points,
    measures: Vec<Measure>,
}

impl Sweep<'_> {
    /// Measures what is not known yet of one checkpoint.
    fn checkpoint(&mut self, folder: &Path, plan: &Plan, clock: &mut Clock) -> Result<()> {
        let mut bench = Bench::open(folder, self.args)?;
        let combinations = plan.of(bench.parameters());
        clock.fewer(plan.len() - combinations.len());
        for settings in combinations {
            let key = bench.key(&settings);
            self.measures.push(key.measure.clone());
            if self.known.has(&key) {
                clock.skip();
                continue;
            }
            let done = match bench.measure(&settings, key)? {
                Measured::Point(point) => {
                    let done = line(&point);
                    self.known.add(*point);
                    done
                }
                Measured::Refused(refused) => {
                    let done = format!("{}: {}", refused.name, refused.reason);
                    self.known.refuse(*refused);
                    done
                }
            };
            self.save()?;
            clock.done(&done);
        }
        Ok(())
    }

    /// Writes the three files: all that is known, and of what can be compared the table and the picture.
    fn save(&self) -> Result<()> {
        let at = |name: &str| -> PathBuf { self.args.out.join(name) };
        self.known.write(at(POINTS))?;
        let points = self.points();
        atomic::write(at(TABLE), sweep::csv(&points, &on_front(&points)).as_bytes())?;
        atomic::write(at(PICTURE), draw::picture(&points, self.args).svg(true).as_bytes())?;
        Ok(())
    }

    /// The points of the folder that are measured as this command does, those of earlier ones too.
    fn points(&self) -> Vec<&Point> {
        self.known.points.iter().filter(|p| self.measures.contains(&p.key.measure)).collect()
    }

    fn refused(&self) -> Vec<&Refused> {
        self.known.refused.iter().filter(|r| self.measures.contains(&r.key.measure)).collect()
    }

    fn json(&self) -> Json<'_> {
        let points = self.points();
        let front = on_front(&points);
        let row = |(point, pareto): (_, _)| {
            let point: &Point = point;
            JsonPoint { point, bits_per_weight: point.bits_per_weight(), gap: point.gap(), pareto }
        };
        Json { points: points.into_iter().zip(front).map(row).collect(), refused: self.refused() }
    }

    /// A table with the points of one scheme and size together, whatever the checkpoint.
    fn text(&self) -> String {
        let points = self.points();
        let mut rows: Vec<_> = points.iter().zip(on_front(&points)).collect();
        rows.sort_by_key(|(p, _)| &p.key.settings);
        let header = ["checkpoint", "scheme", "codec", "asked", "int6", "bytes", "bits/weight", "bpb", "gap", "Pareto"];
        let rows: Vec<_> = rows.into_iter().map(|(p, front)| row(p, front)).collect();
        let mut out = render(&header, &rows);
        for r in self.refused() {
            out.push_str(&format!("{}, {}: {}\n", r.name, r.key.settings.scheme, r.reason));
        }
        let out_folder = self.args.out.display();
        out.push_str(&format!("\n{out_folder}/{POINTS}, {TABLE}, {PICTURE}\n"));
        out
    }
}

/// Which of the points no other beats.
fn on_front(points: &[&Point]) -> Vec<bool> {
    let plane: Vec<_> = points.iter().map(|p| (p.packed.bytes as f64, p.loss())).collect();
    let front = sweep::front(&plane);
    (0..points.len()).map(|i| front.contains(&i)).collect()
}

fn row(p: &Point, front: bool) -> Vec<String> {
    let settings = &p.key.settings;
    vec![
        p.name.clone(),
        settings.scheme.clone(),
        settings.codec.clone(),
        asked(p),
        p.int6.map_or("–".into(), |n| n.to_string()),
        thousands(p.packed.bytes),
        format!("{:.3}", p.bits_per_weight()),
        format!("{:.5}", p.loss()),
        format!("{:+.5}", p.gap()),
        if front { "*".into() } else { String::new() },
    ]
}

/// The size asked for.
fn asked(p: &Point) -> String {
    let settings = &p.key.settings;
    match (settings.int6_layers, settings.target_bytes) {
        (Some(n), _) => format!("int6 × {n}"),
        (None, Some(bytes)) => format!("≤ {}", thousands(bytes)),
        (None, None) => "–".into(),
    }
}

/// A point in one line.
fn line(p: &Point) -> String {
    let settings = &p.key.settings;
    format!(
        "{}, {} {}, {}: {} bytes, {:.5} ({:+.5})",
        p.name,
        settings.scheme,
        asked(p),
        settings.codec,
        thousands(p.packed.bytes),
        p.loss(),
        p.gap()
    )
}

/// What `--json` prints.
#[derive(Serialize)]
struct Json<'a> {
    points: Vec<JsonPoint<'a>>,
    refused: Vec<&'a Refused>,
}

#[derive(Serialize)]
struct JsonPoint<'a> {
    #[serde(flatten)]
    point: &'a Point,
    bits_per_weight: f64,
    gap: f64,
    pareto: bool,
}
