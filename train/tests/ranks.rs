//! Runs on several ranks, each a thread here: the same as one of a single rank but for rounding, to the bit among
//! themselves.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sixpack_train::collective::launch::Meeting;
use sixpack_train::collective::{Hear, Limits, Pending, Tcp};
use sixpack_train::loader::{Rank, Source};
use sixpack_train::{Alone, Collective, Event, Params, Recipe, Result, Setup, Trainer};

/// A model of 25 thousand parameters, ten steps of eight sequences, recurrence from step 4.
const RECIPE: &str = r#"
name = "test"
seed = 7
model = { preset = "small", vocab_size = 64, num_layers = 3, model_dim = 32, num_heads = 2, num_kv_heads = 1, rope_dims = 8, train_seq_len = 16, eval_seq_len = 16, xsa_last_n = 3, ve_layers = [2], ve_dim = 8, recur_layers = [1] }
batch = { tokens_per_step = 128, micro_batch = 2 }
budget = { steps = 10 }
schedule = { recurrence = { step = 4 } }
run = { warmup_steps = 0, log_steps = 1, checkpoint_seconds = 0 }
"#;

/// Losses and weights of one rank and of several differ by the order in which f32 are added, which training makes grow.
const LOSS: f64 = 1e-4;
const WEIGHT: f32 = 2e-3;

const RULES: [&[&str]; 3] =
    [&[], &["optimizer.matrix.kind=normuon"], &["optimizer.matrix.kind=adamw", "optimizer.matrix.lr=0.01"]];

fn recipe(overrides: &[&str]) -> Recipe {
    Recipe::parse(RECIPE, overrides).unwrap()
}

fn shards() -> [Vec<u16>; 2] {
    [900, 400].map(|n| (0..n).map(|i| ((i + i / 37 * 11) % 64) as u16).collect())
}

fn sources(shards: &[Vec<u16>]) -> Vec<Source<'_>> {
    let names = ["a.bin", "b.bin"];
    shards.iter().zip(names).map(|(tokens, name)| Source { name, content: "hash", tokens }).collect()
}

/// What `rank` does on each of several ranks, of which each is given the others.
fn ranks<T: Send>(world: usize, rank: impl Fn(&dyn Collective) -> T + Sync) -> Vec<T> {
    if world == 1 {
        return vec![rank(&Alone)];
    }
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let meeting = Meeting { host: "127.0.0.1".into(), port };
    std::thread::scope(|scope| {
        let start = |r| {
            let (meeting, rank) = (&meeting, &rank);
            scope.spawn(move || rank(&Tcp::join(Rank { rank: r, world }, meeting, Limits::default()).unwrap()))
        };
        let threads: Vec<_> = (0..world).map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// How a run ended on one rank.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    losses: Vec<f64>,
    weights: Params,
    average: Params,
    step: u64,
}

fn run(
    all: &dyn Collective,
    recipe: Recipe,
    folder: Option<&Path>,
    resume: bool,
    stop: Option<(usize, u64)>,
) -> Result<Run> {
    let shards = shards();
    let flag = AtomicBool::new(false);
    let mut setup = Setup::new(sources(&shards), 1 + all.rank().rank % 2);
    (setup.folder, setup.all, setup.stop) = (folder.map(Into::into), all, Some(&flag));
    let mut trainer = if resume { Trainer::resume(recipe, setup)? } else { Trainer::new(recipe, setup)? };
    let mut losses = Vec::new();
    if let Some((rank, _)) = stop.filter(|_| all.rank().rank > 0) {
        // Rank 0 hears how far the run is; another rank is asked at its beginning.
        flag.store(rank == all.rank().rank, Ordering::Relaxed);
    }
    trainer.run(&mut |event| {
        if let Event::Step(progress) = event {
            losses.push(progress.loss);
            if stop == Some((0, progress.step + 1)) {
                flag.store(true, Ordering::Relaxed);
            }
        }
    })?;
    Ok(Run { losses, weights: trainer.weights().clone(), average: trainer.average().clone(), step: trainer.step() })
}

/// All ranks' weights are the same to the bit; those of two runs nearly.
fn same(of_ranks: &[Run], reference: &Run, what: &str) {
    for (rank, run) in of_ranks.iter().enumerate() {
        assert!(run.weights == of_ranks[0].weights && run.average == of_ranks[0].average, "rank {rank}, {what}");
        assert_eq!(run.losses.is_empty(), rank > 0, "only rank 0 tells");
    }
    let close = |a: &f64, b: &f64| (a / b - 1.0).abs() < LOSS;
    let last = &reference.losses[reference.losses.len() - of_ranks[0].losses.len()..];
    assert!(
        of_ranks[0].losses.iter().zip(last).all(|(a, b)| close(a, b)),
        "{what}: {:?}, {last:?}",
        of_ranks[0].losses
    );
    for (id, expected) in &reference.weights {
        let furthest = expected.iter().zip(&of_ranks[0].weights[id]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < WEIGHT, "{what}: {id} is {furthest} away");
    }
}

#[test]
fn any_number_of_ranks_trains_the_same_model() {
    for rule in RULES {
        let alone = run(&Alone, recipe(rule), None, false, None).unwrap();
        assert_eq!(alone.losses.len(), 10);
        for world in [2, 4] {
            let of_ranks = ranks(world, |all| run(all, recipe(rule), None, false, None).unwrap());
            same(&of_ranks, &alone, &format!("{world} ranks, {rule:?}"));
            let again = ranks(world, |all| run(all, recipe(rule), None, false, None).unwrap());
            assert_eq!(of_ranks, again, "a run is repeated to the bit");
        }
    }
}

#[test]
fn a_checkpoint_of_two_ranks_goes_on_with_any_number() {
    for rule in RULES {
        let straight = ranks(2, |all| run(all, recipe(rule), None, false, None).unwrap());
        for world in [1, 2, 4] {
            let folder = tempfile::tempdir().unwrap();
            let halves = ranks(2, |all| run(all, recipe(rule), Some(folder.path()), false, Some((0, 5))).unwrap());
            assert_eq!([halves[0].step, halves[1].step], [5, 5]);
            // Only rank 0 has the folder.
            let none = folder.path().join("none");
            let at = |all: &dyn Collective| if all.rank().rank == 0 { folder.path().to_owned() } else { none.clone() };
            let resumed = ranks(world, |all| run(all, recipe(rule), Some(&at(all)), true, None).unwrap());
            assert!(resumed.iter().all(|run| run.step == 10) && !none.exists());
            same(&resumed, &straight[0], &format!("resumed on {world} ranks, {rule:?}"));
            if world == 2 {
                assert!(resumed[0].weights == straight[0].weights && resumed[0].average == straight[0].average);
            }
        }
    }
}

#[test]
fn clocks_and_stops_are_agreed_on() {
    let timed = &["budget={seconds=0.2}", "run.warmup_steps=1"];
    let of_ranks =
        ranks(3, |all| run(all, recipe(&[timed, &["batch.tokens_per_step=96"][..]].concat()), None, false, None));
    let steps: Vec<_> = of_ranks.into_iter().map(|run| run.unwrap().step).collect();
    assert!(steps[0] > 0 && steps.iter().all(|&step| step == steps[0]), "{steps:?}");
    let stopped = ranks(2, |all| run(all, recipe(&[]), None, false, Some((1, 0))).unwrap().step);
    assert_eq!(stopped, [0, 0], "a request to any rank stops all");
}

#[test]
fn what_is_not_the_same_run_is_refused_on_all_ranks() {
    let refused =
        |world, overrides: &(dyn Fn(usize) -> Vec<&'static str> + Sync), resumes: &(dyn Fn(usize) -> bool + Sync)| {
            let messages = ranks(world, |all| {
                let rank = all.rank().rank;
                run(all, recipe(&overrides(rank)), None, resumes(rank), None).unwrap_err().to_string()
            });
            assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
            messages[0].clone()
        };
    let nothing = |_| Vec::new();
    assert_eq!(
        refused(3, &nothing, &|_| false),
        "recipe key `batch.tokens_per_step`: expected as many sequences a step as 3 ranks can share evenly, found 8 sequences"
    );
    let rate = |rank| if rank == 1 { vec!["optimizer.token.lr=0.5"] } else { Vec::new() };
    assert_eq!(
        refused(2, &rate, &|_| false),
        "rank 1 differs from rank 0 in recipe key `optimizer.token.lr`: expected 0.03, found 0.5"
    );
    assert_eq!(
        refused(4, &nothing, &|rank| rank >= 2),
        "rank 2 differs from rank 0 in what it begins: expected a new run, found a resumed run"
    );
}

#[test]
fn training_that_diverges_ends_with_one_message() {
    let overrides =
        ["optimizer.matrix.lr=1e3", "optimizer.token.lr=1e3", "optimizer.scalar.lr=1e3", "budget.steps=100"];
    let messages = ranks(2, |all| run(all, recipe(&overrides), None, false, None).unwrap_err().to_string());
    assert!(messages[0].starts_with("training diverged at step") && messages[0] == messages[1], "{messages:?}");
}

/// A rank that hears one sum wrongly.
#[derive(Debug)]
struct Deaf<'a>(&'a dyn Collective);

impl Collective for Deaf<'_> {
    fn rank(&self) -> Rank {
        self.0.rank()
    }

    fn sum(&self, bucket: Vec<f32>) -> Result<Pending> {
        let sum = self.0.sum(bucket)?;
        Ok(Pending::new(|| Ok(sum.wait()?.into_iter().map(|x| x * 1.001).collect())))
    }

    fn broadcast(&self, from: usize, bucket: Vec<f32>) -> Result<Pending> {
        self.0.broadcast(from, bucket)
    }

    fn gather(&self, of_ranks: Vec<Vec<f32>>) -> Result<Pending<Vec<Vec<f32>>>> {
        self.0.gather(of_ranks)
    }

    fn exchange(&self, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.0.exchange(value)
    }

    fn leave(&self, reason: &str) {
        self.0.leave(reason);
    }

    fn on_loss(&self, hear: Hear) {
        self.0.on_loss(hear);
    }
}

#[test]
fn weights_that_drift_apart_are_found_out_before_they_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = &["optimizer.grad_clip=1e9", "run.log_steps=1000"];
    let messages = ranks(3, |all| {
        let deaf = Deaf(all);
        let all: &dyn Collective = if all.rank().rank == 2 { &deaf } else { all };
        let recipe = recipe(&[&overrides[..], &["batch.tokens_per_step=96"]].concat());
        run(all, recipe, Some(folder.path()), false, None).unwrap_err().to_string()
    });
    for message in messages {
        let expected = "rank 2 differs from rank 0 in tensor `tok_emb.weight` after step 10: expected weights of hash";
        assert!(message.starts_with(expected), "{message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
