//! What kernels give that read and write 16 bytes at once, beside what they give one number at a time, where memory begins
//! between; also of rows that are longer than a warp's registers hold, and where numbers are left over.

use sixpack_runtime::Ops;
use sixpack_runtime::cpu::{Dense, Mat, Reference};
use sixpack_runtime::cuda::{Act, Buffer, Cuda, Direction, Elsewhere, Gpu, Group, Kind, Moments, Stack, Weight};

/// More than a warp holds of either kind, and a multiple of both packs.
const WIDE: usize = 1048;
const ROWS: usize = 3;

/// Where memory begins, in elements: at 16 bytes, and between.
const BEGINS: [usize; 2] = [0, 1];

/// The same numbers each time, between -2 and 2.
fn values(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 4001) as f32 / 1000.0 - 2.0).collect()
}

/// These values from element `at` of some memory on.
fn placed(gpu: &Gpu, kind: Kind, values: &[f32], at: usize) -> Buffer {
    let own = gpu.empty(kind, at + values.len()).unwrap().part(at..at + values.len());
    gpu.write(&own, values).unwrap();
    own
}

/// Both ways of each operation.
pub(crate) fn all(ops: &mut Cuda) {
    channels(ops);
    norms(ops);
    optimizers(ops.gpu(), ops.storage());
}

/// An activation of `ROWS` rows, as its storage has it.
fn act(ops: &mut Cuda, seed: usize) -> (Mat, Act) {
    let data = values(seed, ROWS * WIDE);
    let act = ops.bring(&Mat { sequences: 1, len: ROWS, cols: WIDE, start: 0, data }).unwrap();
    let data = ops.gpu().read(act.buffer()).unwrap();
    (Mat { sequences: 1, len: ROWS, cols: WIDE, start: 0, data }, act)
}

/// What has a weight for each channel gives the same forward, and backward.
fn channels(ops: &mut Cuda) {
    let ([(_, x), (_, y)], dy) = ([1, 2].map(|seed| act(ops, seed)), values(3, ROWS * WIDE));
    type Operation = fn(&mut Cuda, &Weight, &Act, &Act) -> Act;
    let operations: [(&str, Operation); 4] = [
        ("mix", |o, w, x, y| o.mix(w, x, y).unwrap()),
        ("add_scaled", |o, w, x, y| o.add_scaled(x, w, y).unwrap()),
        ("scale", |o, w, x, _| o.scale(w, x).unwrap()),
        ("gated_skip", |o, w, x, y| o.gated_skip(w, Some(w), 0, x, y).unwrap()),
    ];
    for (what, f) in operations {
        let rows = if what == "mix" { 2 } else { 1 };
        let found = BEGINS.map(|at| {
            let value = placed(ops.gpu(), Kind::F32, &values(4, rows * WIDE), at);
            let gradient = ops.gpu().zeros(Kind::F32, rows * WIDE).unwrap();
            let w = Weight::new(value, Some(gradient.clone()), [rows, WIDE]);
            ops.start_tape().unwrap();
            let out = f(ops, &w, &x, &y);
            let dy = ops.gpu().floats(ops.storage(), &dy).unwrap();
            let [dx, other] = <[_; 2]>::try_from(ops.backward(&out, dy, &[&x, &y]).unwrap()).unwrap();
            [Some(out.buffer().clone()), dx, other, Some(gradient)].map(|b| b.map(|b| ops.gpu().read(&b).unwrap()))
        });
        let [packed, single] = &found;
        let rounding = if ops.storage() == Kind::F32 { 1e-6 } else { 1.0 / 256.0 };
        for (packed, single) in packed[..3].iter().zip(&single[..3]).filter_map(|(p, s)| p.as_ref().zip(s.as_ref())) {
            near(what, packed, single, rounding);
        }
        near(what, packed[3].as_ref().unwrap(), single[3].as_ref().unwrap(), 1e-5);
    }
}

/// Rows of which a part is read again, against plain ones.
fn norms(ops: &mut Cuda) {
    let ([(x, x_at), (y, y_at)], w) = ([1, 2].map(|seed| act(ops, seed)), values(4, 2 * WIDE));
    let tolerance = if ops.storage() == Kind::Bf16 { 1.0 / 64.0 } else { 2e-5 };
    let dense = |rows: usize| Dense::new(rows, WIDE, w[..rows * WIDE].to_vec());
    let mut plain = Reference::new();
    let normed = plain.rms_norm(&x, 0.7).unwrap();
    let mixed = plain.mix_norm(&dense(2), &x, &y, 0.7).unwrap();
    let added = plain.add_scaled_norm(&x, &dense(1), &y, 0.7).unwrap();
    for at in BEGINS {
        let weight = |ops: &Cuda, rows: usize| {
            Weight::new(placed(ops.gpu(), Kind::F32, &w[..rows * WIDE], at), None, [rows, WIDE])
        };
        let (two, one) = (weight(ops, 2), weight(ops, 1));
        let found = ops.rms_norm(&x_at, 0.7).unwrap();
        let (sum, found_mixed) = ops.mix_norm(&two, &x_at, &y_at, 0.7).unwrap();
        let (sum2, found_added) = ops.add_scaled_norm(&x_at, &one, &y_at, 0.7).unwrap();
        let pairs =
            [(found, &normed), (sum, &mixed.0), (found_mixed, &mixed.1), (sum2, &added.0), (found_added, &added.1)];
        for (i, (found, expected)) in pairs.into_iter().enumerate() {
            near(&format!("norm {i}"), &ops.gpu().read(found.buffer()).unwrap(), &expected.data, tolerance);
        }
    }
    ops.start_tape().unwrap();
    let out = ops.rms_norm(&x_at, 0.7).unwrap();
    let dy = ops.gpu().floats(ops.storage(), &y.data).unwrap();
    let dx = ops.backward(&out, dy, &[&x_at]).unwrap().remove(0).expect("a gradient");
    let rows = x.data.chunks(WIDE).zip(y.data.chunks(WIDE));
    let expected: Vec<f32> = rows.flat_map(|(x, dy)| norm_gradient(x, dy, 0.7)).collect();
    near("rms_norm_backward", &ops.gpu().read(&dx).unwrap(), &expected, tolerance);
}

/// `scale · r · (dy − x · r² · mean(x · dy))`.
fn norm_gradient(x: &[f32], dy: &[f32], scale: f32) -> Vec<f32> {
    let mean =
        |other: &[f32]| x.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / x.len() as f64;
    let r = 1.0 / (mean(x) + f64::from(f32::EPSILON)).sqrt();
    let pull = mean(dy) * r * r;
    let one = |(x, dy): (&f32, &f32)| (f64::from(scale) * r * (f64::from(*dy) - pull * f64::from(*x))) as f32;
    x.iter().zip(dy).map(one).collect()
}

/// Optimizers give the same bits, also where some numbers are left over, and where matrices begin elsewhere.
fn optimizers(gpu: &Gpu, storage: Kind) {
    let stack = Stack { count: 2, rows: 3, cols: 600 };
    let n = stack.elements();
    let found = BEGINS.map(|at| {
        let float = |seed: usize, len: usize| placed(gpu, Kind::F32, &values(seed, len), at);
        let plain = |values: &[f32]| gpu.floats(Kind::F32, values).unwrap();
        let (clip, now) = (plain(&[0.5, 1.0]), plain(&[0.9, 0.01, 0.99]));
        let mut all = Vec::new();
        for elsewhere in [None, Some([n / 2 + 8 + at, at])] {
            let room = if elsewhere.is_some() { n + 16 } else { n };
            let gradients = placed(gpu, Kind::F32, &values(2, room), at);
            // In the other order the second matrix is the first.
            let order = |x: &[f32]| [&x[n / 2..], &x[..n / 2]].concat();
            if elsewhere.is_some() {
                let moved = order(&values(2, n));
                gpu.write(&gradients.part(at..at + n / 2), &moved[..n / 2]).unwrap();
                gpu.write(&gradients.part(n / 2 + 8 + at..n + 8 + at), &moved[n / 2..]).unwrap();
            }
            let shadow = gpu.zeros(storage, at + room).unwrap().part(at..at + room);
            let elsewhere = elsewhere.map(|starts| Elsewhere::new(gpu, &starts, n / 2).unwrap());
            let group =
                Group { weights: float(1, n), gradients, shadow: Some(shadow.clone()), elsewhere, clip: clip.clone() };
            let [mean, square, momentum] = [3, 3, 4].map(|seed| float(seed, n));
            let squares: Vec<f32> = values(5, n).iter().map(|x| x * x).collect();
            gpu.write(&square, &squares).unwrap();
            gpu.adamw(&group, [&mean, &square], &now, Moments { keep: [0.9, 0.95], eps: 1e-8 }).unwrap();
            let update = placed(gpu, storage, &vec![0.0; n], at);
            for averaged in [false, true] {
                let by = Direction { averaged, equal: false };
                gpu.muon_direction(&group, &momentum, &now, by, &update, stack).unwrap();
            }
            gpu.muon_apply(&group, (&update, None), &now, (1.5, true), stack).unwrap();
            let shadow = match group.elsewhere {
                None => gpu.read(&shadow).unwrap(),
                Some(_) => {
                    let own = gpu.read(&shadow).unwrap();
                    [&own[n / 2 + 8 + at..n + 8 + at], &own[at..at + n / 2]].concat()
                }
            };
            all.push([&group.weights, &mean, &square, &momentum, &update].map(|b| gpu.read(b).unwrap()).concat());
            all.push(shadow);
        }
        assert!(all[0] == all[2] && all[1] == all[3], "the order of matrices changes what they become");
        // Three left over of either pack.
        let (average, rounded) = (float(6, n + 3), placed(gpu, storage, &vec![0.0; n + 3], at));
        gpu.ema(&average, &float(7, n + 3), 0.9).unwrap();
        gpu.convert(&average, None, &rounded).unwrap();
        all.push([gpu.read(&average).unwrap(), gpu.read(&rounded).unwrap()].concat());
        let norm = plain(&[0.0; 2]);
        gpu.clip(&float(8, n + 3), 1e9, &norm).unwrap();
        (all, gpu.read(&norm).unwrap())
    });
    let [(packed, norm), (single, other)] = &found;
    assert!(packed.iter().flatten().all(|x| x.is_finite()));
    // A compiler may fuse another product with a sum where a kernel is made for packs.
    let rounding = if storage == Kind::F32 { 1e-6 } else { 1.0 / 256.0 };
    for (packed, single) in packed.iter().zip(single) {
        near("optimizers", packed, single, rounding);
    }
    near("clip", norm, other, 1e-6);
    let expected = values(8, n + 3).iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    near("clip's norm", &norm[1..], &[expected as f32], 1e-6);
}

fn near(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * (1.0 + e.abs()), "{what}[{i}]: found {f}, expected {e}");
    }
}
