//! Every rule of the matrix group against an independent f64 implementation: ten steps on square, tall and wide
//! matrices, with the learning rate, the decay and the momentum moving, through [`Optimizer::step`].

mod reference;

use reference::{Iterations, Memory, Step};
use sixpack_formats::{Init, OptimizerGroup, Part, QuantClass, TensorId, TensorSpec};
use sixpack_train::optim::{AdamW, Coefficients, Groups, Matrix, Muon, NorMuon, Now};
use sixpack_train::{Optimizer, Params};

const TOLERANCE: f64 = 1e-5;
const STEPS: u64 = 10;

/// Two of each shape, so that stacks have more than one matrix.
const SHAPES: [[usize; 2]; 3] = [[24, 24], [40, 17], [16, 33]];

fn table() -> Vec<TensorSpec> {
    let ids = (0..).flat_map(|layer| [Part::Query, Part::Key, Part::Value].map(|part| TensorId::Block(layer, part)));
    let shapes = SHAPES.into_iter().chain(SHAPES);
    let spec = |(id, shape): (TensorId, [usize; 2])| TensorSpec {
        id,
        shape: shape.to_vec(),
        init: Init::Orthogonal,
        group: OptimizerGroup::Matrix,
        class: QuantClass::Half,
    };
    ids.zip(shapes).map(spec).collect()
}

/// Numbers around 0, the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn params(&mut self, size: f32) -> Params {
        table().iter().map(|spec| (spec.id, (0..spec.elements()).map(|_| size * self.next()).collect())).collect()
    }
}

fn now(step: u64) -> Now {
    let t = step as f32 / STEPS as f32;
    Now { lr_scale: 1.0 - 0.8 * t, momentum: 0.85 + 0.1 * t, decay_scale: 1.0 - t }
}

/// The coefficients as they are published.
fn iterations(coefficients: Coefficients, steps: usize) -> Iterations {
    let polar_express = [
        [8.156554524902461, -22.48329292557795, 15.878769915207462],
        [4.042929935166739, -2.808917465908714, 0.5000178451051316],
        [3.8916678022926607, -2.772484153217685, 0.5060648178503393],
        [3.285753657755655, -2.3681294933425376, 0.46449024233003106],
        [2.3465413258596377, -1.7097828382687081, 0.42323551169305323],
    ];
    let triples = match (coefficients, steps) {
        (Coefficients::Constant, _) => vec![[3.4445, -4.775, 2.0315]; steps],
        (Coefficients::PolarExpress, _) => polar_express[..steps].to_vec(),
        (Coefficients::Fitted, _) => fitted(steps),
    };
    let (factor, epsilon) = if coefficients == Coefficients::Constant { (1.0, 1e-7) } else { (1.02, 1e-6) };
    Iterations { factor, epsilon, triples }
}

/// The fitted coefficients as another program (NumPy, `linalg.solve`) fits them.
fn fitted(steps: usize) -> Vec<[f64; 3]> {
    match steps {
        1 => vec![[4.726218839481468, -10.52717244804675, 7.100953608565282]],
        2 => vec![
            [6.933219465384074, -18.4718780038295, 12.91149714518799],
            [2.740289306127609, -2.051915650084056, 0.4652963221029378],
        ],
        3 => vec![
            [7.9562547444132425, -22.339856750712876, 15.864025252401659],
            [3.6048355677663446, -2.5963461144121953, 0.4906018285099993],
            [2.740289306127611, -2.0519156500840574, 0.4652963221029381],
        ],
        4 => vec![
            [8.250120497482332, -23.454473340659874, 16.716034918283192],
            [4.016481919959558, -2.8740332821529715, 0.5201146352705556],
            [3.6048355677663464, -2.5963461144121958, 0.4906018285099993],
            [2.740289306127608, -2.0519156500840547, 0.4652963221029375],
        ],
        5 => vec![
            [8.304243925341249, -23.659899573563223, 16.873108874933855],
            [4.102558355168191, -2.9310634289611746, 0.526194278379885],
            [3.8958226513942726, -2.7935258240057563, 0.5115413664840477],
            [3.2656046383799455, -2.3599959152933105, 0.46565925942148323],
            [2.3301198623469177, -1.7078250247392768, 0.429587863477029],
        ],
        6 => vec![
            [8.304243925341249, -23.659899573563223, 16.873108874933855],
            [4.102558355168191, -2.9310634289611746, 0.526194278379885],
            [3.8958226513942726, -2.7935258240057563, 0.5115413664840477],
            [3.2656046383799455, -2.3599959152933105, 0.46565925942148323],
            [2.284431237595017, -1.609321664310179, 0.3890909634801528],
            [1.9072784080740526, -1.2965213608946364, 0.3891894538385185],
        ],
        7 => vec![
            [8.304243925341249, -23.659899573563223, 16.873108874933855],
            [4.102558355168191, -2.9310634289611746, 0.526194278379885],
            [3.8958226513942726, -2.7935258240057563, 0.5115413664840477],
            [3.2656046383799455, -2.3599959152933105, 0.46565925942148323],
            [2.284431237595017, -1.609321664310179, 0.3890909634801528],
            [1.8698807922294634, -1.221741035588345, 0.352500879202424],
            [1.876842621283196, -1.2536823191922604, 0.37683968748516244],
        ],
        _ => panic!("there is no fit for {steps} steps"),
    }
}

/// One step of one matrix by the reference.
fn expected(
    rule: &Matrix,
    w: &reference::Matrix,
    g: &reference::Matrix,
    m: &mut Memory,
    step: Step,
) -> reference::Matrix {
    let step = Step { lr: step.lr * rule.lr(), decay: step.decay * rule.weight_decay(), ..step };
    match rule {
        Matrix::Muon(r) => {
            let by = iterations(r.coefficients, r.newton_schulz_steps);
            reference::muon(w, g, m, &by, step, r.row_equalisation, r.cautious)
        }
        Matrix::NorMuon(r) => {
            let by = iterations(r.coefficients, r.newton_schulz_steps);
            reference::normuon(w, g, m, &by, step, r.beta2, r.cautious)
        }
        Matrix::AdamW(r) => reference::adamw(w, g, m, step, r.betas, r.eps),
    }
}

/// Ten steps of both; the largest difference of a weight.
fn difference(rule: Matrix) -> f64 {
    let adamw = AdamW { lr: 0.0, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.0 };
    let mut optimizer = Optimizer::of_table(table(), Groups { matrix: rule, token: adamw, scalar: adamw }).unwrap();
    let mut numbers = Numbers(3);
    let mut found = numbers.params(0.5);
    let start = found.clone();
    let mut states: Vec<_> = table()
        .into_iter()
        .map(|spec| {
            let [rows, cols] = spec.shape[..] else { panic!("{spec:?}") };
            let second = match rule {
                Matrix::NorMuon(_) => reference::zeros(rows.max(cols), 1),
                _ => reference::zeros(rows, cols),
            };
            let memory = Memory { first: reference::zeros(rows, cols), second };
            (spec.id, reference::rows_of(&start[&spec.id], cols), memory)
        })
        .collect();
    for step in 0..STEPS {
        // Some rows and columns larger than others, and a part that stays the same.
        let mut gradients = numbers.params(0.01);
        for spec in table() {
            for (i, g) in gradients.get_mut(&spec.id).unwrap().iter_mut().enumerate() {
                let (row, col) = (i / spec.shape[1], i % spec.shape[1]);
                *g = *g * (1.0 + (row % 5) as f32) / (1.0 + (col % 3) as f32) + 0.003 * ((3 * row + col) % 7) as f32;
            }
        }
        let now = now(step);
        optimizer.step(&mut found, &gradients, now);
        for (id, w, memory) in &mut states {
            let g = reference::rows_of(&gradients[id], w[0].len());
            let factors = Step {
                number: step as i32 + 1,
                lr: f64::from(now.lr_scale),
                decay: f64::from(now.decay_scale),
                mu: f64::from(now.momentum),
            };
            *w = expected(&rule, w, &g, memory, factors);
        }
    }
    let mut worst = 0.0f64;
    for (id, w, _) in &states {
        let expected = w.iter().flatten();
        worst = found[id].iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).abs()).fold(worst, f64::max);
        let far = found[id].iter().zip(&start[id]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far > 0.02, "{id} hardly moves: {far}");
    }
    worst
}

fn assert_agrees(rule: Matrix) {
    let worst = difference(rule);
    assert!(worst < TOLERANCE, "{rule:?} is off by {worst:.1e}");
}

const MUON: Muon = Muon {
    lr: 0.04,
    weight_decay: 0.2,
    newton_schulz_steps: 5,
    coefficients: Coefficients::Constant,
    row_equalisation: true,
    cautious: false,
};

const NORMUON: NorMuon = NorMuon {
    lr: 0.04,
    weight_decay: 0.2,
    newton_schulz_steps: 5,
    coefficients: Coefficients::PolarExpress,
    beta2: 0.95,
    cautious: true,
};

#[test]
fn muon_with_and_without_row_equalisation_and_caution() {
    for row_equalisation in [true, false] {
        for cautious in [true, false] {
            assert_agrees(Matrix::Muon(Muon { row_equalisation, cautious, ..MUON }));
        }
    }
}

#[test]
fn muon_with_other_coefficients() {
    use Coefficients::{Constant, Fitted, PolarExpress};
    let fitted = (1..=7).map(|steps| (Fitted, steps));
    for (coefficients, newton_schulz_steps) in
        [(Constant, 3), (Constant, 7), (PolarExpress, 5), (PolarExpress, 3)].into_iter().chain(fitted)
    {
        assert_agrees(Matrix::Muon(Muon { coefficients, newton_schulz_steps, row_equalisation: false, ..MUON }));
    }
}

#[test]
fn normuon_with_and_without_caution_and_with_other_settings() {
    assert_agrees(Matrix::NorMuon(NORMUON));
    assert_agrees(Matrix::NorMuon(NorMuon { cautious: false, ..NORMUON }));
    for beta2 in [0.0, 0.9, 0.99, 0.999] {
        assert_agrees(Matrix::NorMuon(NorMuon { beta2, ..NORMUON }));
    }
    assert_agrees(Matrix::NorMuon(NorMuon { coefficients: Coefficients::Constant, ..NORMUON }));
    for newton_schulz_steps in [3, 7] {
        let coefficients = Coefficients::Fitted;
        assert_agrees(Matrix::NorMuon(NorMuon { coefficients, newton_schulz_steps, ..NORMUON }));
    }
}

#[test]
fn adamw_for_matrices() {
    for (lr, betas) in [(0.04, [0.8, 0.95]), (0.01, [0.9, 0.999])] {
        assert_agrees(Matrix::AdamW(AdamW { lr, betas, eps: 1e-8, weight_decay: 0.2 }));
    }
}

#[test]
fn steps_beyond_a_table_make_no_optimizer() {
    let adamw = AdamW { lr: 0.0, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.0 };
    let matrix = Matrix::NorMuon(NorMuon { newton_schulz_steps: 7, ..NORMUON });
    let message = Optimizer::of_table(table(), Groups { matrix, token: adamw, scalar: adamw }).unwrap_err().to_string();
    assert!(message.contains("`optimizer.matrix.newton_schulz_steps`: expected 1 to 5"), "{message}");
}
