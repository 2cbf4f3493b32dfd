//! The folder of an experiment: one folder for each run that is over, and those at work out of the way.
//!
//! A run works in `.working/ID.SEED` and is there as a whole when its folder takes its name, `runs/ID/seed-N`. What is
//! still at work when the experiment ends, however it ends, is thrown away and done again.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sixpack_formats::atomic;
use sixpack_train::experiment::{Conditions, Outcome, Plan, Record, Run};

use crate::misuse::misuse;

/// What came of a run, in its folder.
const RECORD: &str = "run.json";
/// What it was made with.
pub(super) const RECIPE: &str = "recipe.toml";

/// The content of `run.json`.
#[derive(Serialize, Deserialize)]
struct Saved {
    conditions: Conditions,
    record: Record,
}

/// The folder, held by this process alone.
pub(super) struct Folder {
    root: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Opens or makes the folder.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let working = root.join(".working");
        make(&working)?;
        let path = working.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(misuse(format!("--out: an experiment is being run in {} already", root.display())));
            }
            Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
        Ok(Self { root: root.into(), _lock: lock })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The runs of a plan that are over; one that was made otherwise than the plan says is refused.
    pub(super) fn known(&self, plan: &Plan, conditions: &Conditions, retry: bool) -> Result<Vec<(Run, Record)>> {
        let mut known = Vec::new();
        for run in plan.runs() {
            let folder = self.of(plan, run);
            if !folder.join(RECORD).exists() {
                continue;
            }
            let read = |name: &str| {
                let path = folder.join(name);
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
            };
            let saved: Saved = serde_json::from_str(&read(RECORD)?)
                .with_context(|| format!("{}: not a record of this program", folder.join(RECORD).display()))?;
            let another = |what: &str, was: &str, is: &str| {
                let (folder, plan) = (folder.display(), plan.path().display());
                misuse(format!(
                    "{plan}: {what} is not what {folder} was made with ({was}), but {is}: choose another --out, or \
                     remove that folder"
                ))
            };
            if let Some((what, was, is)) = saved.conditions.difference(conditions) {
                return Err(another(what, &was, &is));
            }
            let (was, is) = (read(RECIPE)?, plan.recipe(run).to_toml());
            if let Some((was, is)) = difference(&was, &is) {
                return Err(another("the recipe", was, is));
            }
            if retry && matches!(saved.record.outcome, Outcome::Crash(_)) {
                // As a whole, or it would be half a run if this is stopped now.
                let away = self.working_folder(plan, run);
                clear(&away)?;
                fs::rename(&folder, &away).with_context(|| format!("cannot move {}", folder.display()))?;
            } else {
                known.push((run, saved.record));
            }
        }
        Ok(known)
    }

    /// An empty folder for a run to work in, with its recipe.
    pub(super) fn working(&self, plan: &Plan, run: Run) -> Result<PathBuf> {
        let folder = self.working_folder(plan, run);
        clear(&folder)?;
        make(&folder)?;
        atomic::write(folder.join(RECIPE), plan.recipe(run).to_toml().as_bytes())?;
        Ok(folder)
    }

    /// Gives the folder a run worked in its name, with what came of it.
    pub(super) fn commit(
        &self,
        plan: &Plan,
        run: Run,
        from: &Path,
        conditions: &Conditions,
        record: &Record,
    ) -> Result<()> {
        let saved = Saved { conditions: conditions.clone(), record: record.clone() };
        let mut json = serde_json::to_string(&saved)?;
        json.push('\n');
        atomic::write(from.join(RECORD), json.as_bytes())?;
        let to = self.of(plan, run);
        make(to.parent().unwrap_or(&self.root))?;
        // One without a record, from another time.
        clear(&to)?;
        fs::rename(from, &to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
    }

    /// Throws away what was at work; the lock stays as long as this process.
    pub(super) fn tidy(&self) -> Result<()> {
        let working = self.root.join(".working");
        for entry in fs::read_dir(&working).with_context(|| format!("cannot read {}", working.display()))?.flatten() {
            if entry.path().is_dir() {
                clear(&entry.path())?;
            }
        }
        Ok(())
    }

    fn working_folder(&self, plan: &Plan, run: Run) -> PathBuf {
        self.root.join(".working").join(format!("{}.{}", plan.arm(run).id, run.seed))
    }

    fn of(&self, plan: &Plan, run: Run) -> PathBuf {
        self.root.join("runs").join(&plan.arm(run).id).join(format!("seed-{}", run.seed))
    }
}

/// The first lines in which two texts differ.
fn difference<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str)> {
    if a == b {
        return None;
    }
    let differ = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    Some(differ.unwrap_or(("a shorter text", "a longer one")))
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Removes a folder, if it is there.
pub(super) fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
