//! The optimizers once more, in f64 and as plainly as they are written down (openai/parameter-golf pull request 1285
//! and karpathy/nanochat): no line is shared with the crate.

/// A matrix of rows.
pub(crate) type Matrix = Vec<Vec<f64>>;

pub(crate) fn zeros(rows: usize, cols: usize) -> Matrix {
    vec![vec![0.0; cols]; rows]
}

pub(crate) fn rows_of(flat: &[f32], cols: usize) -> Matrix {
    flat.chunks(cols).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
}

fn transposed(a: &Matrix) -> Matrix {
    (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
}

fn times(a: &Matrix, b: &Matrix) -> Matrix {
    let cell = |row: &Vec<f64>, j: usize| (0..b.len()).map(|k| row[k] * b[k][j]).sum();
    a.iter().map(|row| (0..b[0].len()).map(|j| cell(row, j)).collect()).collect()
}

/// `f` of the numbers at the same place in two matrices.
fn zip(a: &Matrix, b: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()).collect()
}

fn scaled(a: &Matrix, factor: f64) -> Matrix {
    a.iter().map(|row| row.iter().map(|x| x * factor).collect()).collect()
}

fn norm(a: &Matrix) -> f64 {
    a.iter().flatten().map(|x| x * x).sum::<f64>().sqrt()
}

/// What the iterations are made of.
pub(crate) struct Iterations {
    pub(crate) factor: f64,
    pub(crate) epsilon: f64,
    pub(crate) triples: Vec<[f64; 3]>,
}

impl Iterations {
    fn of(&self, u: &Matrix) -> Matrix {
        let tall = u.len() > u[0].len();
        let mut x = if tall { transposed(u) } else { u.clone() };
        x = scaled(&x, 1.0 / (self.factor * norm(&x) + self.epsilon));
        for &[a, b, c] in &self.triples {
            let gram = times(&x, &transposed(&x));
            let polynomial = zip(&scaled(&gram, b), &times(&gram, &gram), |g, square| g + c * square);
            x = zip(&times(&polynomial, &x), &x, |p, x| p + a * x);
        }
        if tall { transposed(&x) } else { x }
    }
}

/// The factors of a step.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// From 1.
    pub(crate) number: i32,
    pub(crate) lr: f64,
    pub(crate) decay: f64,
    pub(crate) mu: f64,
}

/// What a rule remembers of a matrix: momentum or mean, and second moment.
pub(crate) struct Memory {
    pub(crate) first: Matrix,
    pub(crate) second: Matrix,
}

/// `W − lr·X` after a decay by `shrink`, everywhere or where `X ⊙ W ≥ 0`.
fn moved(w: &Matrix, x: &Matrix, lr: f64, shrink: f64, cautious: bool) -> Matrix {
    zip(w, x, |w, x| {
        let mask = if !cautious || x * w >= 0.0 { 1.0 } else { 0.0 };
        w - lr * x - shrink * w * mask
    })
}

fn height(w: &Matrix) -> f64 {
    (w.len() as f64 / w[0].len() as f64).max(1.0).sqrt()
}

pub(crate) fn muon(
    w: &Matrix,
    g: &Matrix,
    m: &mut Memory,
    by: &Iterations,
    step: Step,
    rows: bool,
    cautious: bool,
) -> Matrix {
    m.first = zip(&m.first, g, |m, g| step.mu * m + g);
    let mut u = zip(&m.first, g, |m, g| g + step.mu * m);
    if rows {
        for row in &mut u {
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-7);
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
    let o = scaled(&by.of(&u), height(w));
    moved(w, &o, step.lr, step.lr * step.decay, cautious)
}

pub(crate) fn normuon(
    w: &Matrix,
    g: &Matrix,
    m: &mut Memory,
    by: &Iterations,
    step: Step,
    beta2: f64,
    cautious: bool,
) -> Matrix {
    m.first = zip(&m.first, g, |m, g| m + (1.0 - step.mu) * (g - m));
    let u = zip(&m.first, g, |m, g| g + step.mu * (m - g));
    let mut x = by.of(&u);
    // Vectors along the longer side are rows from here on.
    let wide = w.len() < w[0].len();
    if wide {
        x = transposed(&x);
    }
    let n = x[0].len() as f64;
    let v: Vec<f64> = x.iter().map(|row| row.iter().map(|x| x * x).sum::<f64>() / n).collect();
    let mut factors = Vec::new();
    for (i, v) in v.iter().enumerate() {
        let second = &mut m.second[i][0];
        *second += (1.0 - beta2) * (v - *second);
        factors.push(1.0 / second.max(1e-10).sqrt());
    }
    let before: f64 = v.iter().map(|v| v * n).sum();
    let after: f64 = v.iter().zip(&factors).map(|(v, s)| v * n * s * s).sum();
    for (row, factor) in x.iter_mut().zip(&factors) {
        row.iter_mut().for_each(|x| *x *= factor * before.sqrt() / after.sqrt());
    }
    if wide {
        x = transposed(&x);
    }
    let lr = step.lr * height(w);
    moved(w, &x, lr, lr * step.decay, cautious)
}

pub(crate) fn adamw(w: &Matrix, g: &Matrix, m: &mut Memory, step: Step, betas: [f64; 2], eps: f64) -> Matrix {
    let [b1, b2] = betas;
    m.first = zip(&m.first, g, |m, g| b1 * m + (1.0 - b1) * g);
    m.second = zip(&m.second, g, |v, g| b2 * v + (1.0 - b2) * g * g);
    let direction = zip(&m.first, &m.second, |m, v| {
        (m / (1.0 - b1.powi(step.number))) / ((v / (1.0 - b2.powi(step.number))).sqrt() + eps)
    });
    moved(w, &direction, step.lr, step.lr * step.decay, false)
}
