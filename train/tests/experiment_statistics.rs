//! Statistics on simulated runs whose effects are known.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sixpack_train::experiment::statistics::{Effect, MOST_SEEDS, holm, seeds_for};

/// Experiments a figure is made from.
const SIMULATIONS: u32 = 2000;

/// A standard normal (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// The differences of a simulated experiment: what a seed does to both arms is a deviation of 0.01, what it does to one
/// is `noise`.
fn differences(rng: &mut ChaCha8Rng, seeds: usize, effect: f64, noise: f64) -> Vec<f64> {
    let one = |_| {
        let shared = 1.2 + 0.01 * normal(rng);
        let baseline = shared + noise * normal(rng);
        let arm = shared + effect + noise * normal(rng);
        arm - baseline
    };
    (0..seeds).map(one).collect()
}

/// The share of simulated experiments of which something is true.
fn share(rng: &mut ChaCha8Rng, seeds: usize, effect: f64, noise: f64, of: impl Fn(&Effect) -> bool) -> f64 {
    let hits = (0..SIMULATIONS).filter(|_| of(&Effect::of(&differences(rng, seeds, effect, noise)).unwrap()));
    f64::from(u32::try_from(hits.count()).unwrap()) / f64::from(SIMULATIONS)
}

fn excludes_zero(effect: &Effect) -> bool {
    effect.spread.is_some_and(|s| s.excludes_zero())
}

#[test]
fn intervals_cover_known_effects() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for seeds in [2, 3, 6, 12] {
        for (effect, noise) in [(0.0, 0.002), (-0.003, 0.002), (0.02, 0.0005)] {
            let covers = |e: &Effect| e.spread.is_some_and(|s| (s.interval[0]..=s.interval[1]).contains(&effect));
            let covered = share(&mut rng, seeds, effect, noise, covers);
            assert!((0.93..=0.97).contains(&covered), "{covered} with {seeds} seeds, effect {effect}, noise {noise}");
        }
    }
}

#[test]
fn pairing_takes_the_seed_out() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    // A tenth of what a seed does to both arms is found with six seeds, because it does it to both.
    let found = share(&mut rng, 6, -0.001, 0.0003, excludes_zero);
    assert!(found > 0.95, "{found}");
}

#[test]
fn the_smallest_effect_is_found_four_times_in_five() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for seeds in [2, 3, 6, 20] {
        // The deviation is known here, so that the figure is that of the formula and not of an estimate.
        let noise = 0.002;
        let exact: Vec<f64> = (0..seeds).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let unit = Effect::of(&exact).unwrap();
        let smallest = unit.smallest().unwrap() / unit.spread.unwrap().deviation * noise * 2f64.sqrt();
        let found = share(&mut rng, seeds, smallest, noise, excludes_zero);
        assert!((found - 0.8).abs() < 0.03, "{found} with {seeds} seeds");
    }
}

#[test]
fn the_seeds_asked_for_are_those_that_find_it() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (effect, noise) = (0.0015, 0.001);
    let deviation = noise * 2f64.sqrt();
    let n = usize::try_from(seeds_for(effect, deviation).unwrap()).unwrap();
    assert!((8..=11).contains(&n), "{n}");
    let with = share(&mut rng, n, effect, noise, excludes_zero);
    let without = share(&mut rng, n - 2, effect, noise, excludes_zero);
    assert!((0.77..0.87).contains(&with) && without < 0.8, "{with} with {n} seeds, {without} with two fewer");
    assert_eq!(seeds_for(0.0, 1.0), None, "no number of seeds tells nothing from nothing");
    assert_eq!(seeds_for(1.0, 1000.0), None, "more than {MOST_SEEDS}");
    assert_eq!(seeds_for(1.0, 0.0), Some(2));
}

#[test]
fn a_family_of_arms_that_do_nothing_is_rarely_told_from_the_baseline() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut plain, mut adjusted) = (0, 0);
    for _ in 0..SIMULATIONS {
        let p: Vec<f64> =
            (0..12).map(|_| Effect::of(&differences(&mut rng, 6, 0.0, 0.002)).unwrap().spread.unwrap().p).collect();
        plain += u32::from(p.iter().any(|&p| p < 0.05));
        adjusted += u32::from(holm(&p).iter().any(|&p| p < 0.05));
    }
    let of_all = |n: u32| f64::from(n) / f64::from(SIMULATIONS);
    assert!((of_all(plain) - 0.46).abs() < 0.04, "without adjustment: {}", of_all(plain));
    assert!((0.03..0.065).contains(&of_all(adjusted)), "adjusted: {}", of_all(adjusted));
}

#[test]
fn holm_by_hand() {
    assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
    assert_eq!(holm(&[]), [0.0; 0]);
    assert_eq!(holm(&[0.7, 0.9]), [1.0, 1.0]);
}

#[test]
fn few_runs_tell_what_they_can() {
    assert_eq!(Effect::of(&[]), None);
    let one = Effect::of(&[0.5]).unwrap();
    assert_eq!((one.pairs, one.mean, one.spread), (1, 0.5, None));
    let same = Effect::of(&[0.0, 0.0]).unwrap();
    assert_eq!((same.spread.unwrap().interval, same.spread.unwrap().p, same.more_seeds()), ([0.0, 0.0], 1.0, None));
    let effect = Effect::of(&[1.0, 2.0, 3.0]).unwrap();
    let by_hand = effect.spread.unwrap();
    assert!((by_hand.half_width() - 4.302_652_73 / 3f64.sqrt()).abs() < 1e-6, "{by_hand:?}");
    assert!((by_hand.p - 0.074_18).abs() < 1e-5, "{by_hand:?}");
    assert!(effect.more_seeds().is_some_and(|n| n > 0), "{by_hand:?}");
}
