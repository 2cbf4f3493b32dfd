use half::f16;
use proptest::prelude::*;

use super::*;

/// A small generator of random numbers.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = (self.0 ^ self.0 >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^ x >> 29
    }

    /// In 0..1.
    pub(super) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal.
    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Law {
    Zero,
    Constant(i8),
    Alternating(i8),
    Uniform,
    Laplace(f64),
    Gaussian(f64),
}

/// A matrix of codes of this law; with column factors if `columns`, and as paths of the trellis if `trellis`.
pub(super) fn matrix(law: Law, shape: [usize; 2], q_max: u8, columns: bool, trellis: bool) -> QuantizedMatrix {
    let [rows, cols] = shape;
    let mut random = Random(9);
    let top = i32::from(q_max);
    let mut step = |n: usize| (0..n).map(|_| f16::from_f64(0.03 * (0.3 * random.normal()).exp())).collect::<Vec<_>>();
    let (scales, factors) = (step(rows), if columns { step(cols) } else { Vec::new() });
    let mut draw = |i: usize| match law {
        Law::Zero => 0,
        Law::Constant(code) => i32::from(code),
        Law::Alternating(code) => i32::from(code) * if i.is_multiple_of(2) { 1 } else { -1 },
        Law::Uniform => (random.next() % (2 * top as u64 + 1)) as i32 - top,
        Law::Laplace(mean) => {
            (-(1.0 - random.uniform()).ln() * mean * if random.next().is_multiple_of(2) { 1.0 } else { -1.0 }) as i32
        }
        Law::Gaussian(sigma) => (sigma * random.normal()).round() as i32,
    };
    let codes = (0..rows * cols).map(|i| draw(i).clamp(-top, top) as i8).collect();
    let plain = QuantizedMatrix { rows, cols, q_max, codes, scales, columns: factors, trellis };
    if trellis { on_paths(plain) } else { plain }
}

/// The matrix with each code moved to one that its state allows.
fn on_paths(mut matrix: QuantizedMatrix) -> QuantizedMatrix {
    let order = matrix.column_order();
    for row in 0..matrix.rows {
        let mut state = State::default();
        for &column in &order {
            let code = &mut matrix.codes[row * matrix.cols + column];
            let near = |code: i32| [code, code - code.signum(), 1].into_iter().find_map(|code| state.index(code));
            let index = near(i32::from(*code)).unwrap();
            *code = state.code(index) as i8;
            state = state.next(index);
        }
    }
    matrix
}

pub(super) fn laws() -> [Law; 9] {
    let laplace = [0.2, 3.0].map(Law::Laplace);
    let gaussian = [0.3, 2.0, 30.0].map(Law::Gaussian);
    [
        Law::Zero,
        Law::Constant(-3),
        Law::Alternating(127),
        Law::Uniform,
        laplace[0],
        laplace[1],
        gaussian[0],
        gaussian[1],
        gaussian[2],
    ]
}

fn round_trip(matrix: &QuantizedMatrix) -> usize {
    let mut least = usize::MAX;
    let head = choose(matrix);
    for transposed in [false, true] {
        let coded = encode_as(matrix, "w", &Head { transposed, ..head }).unwrap();
        assert_eq!(coded, encode_as(matrix, "w", &Head { transposed, ..head }).unwrap());
        let frame = QuantizedMatrix { codes: Vec::new(), ..matrix.clone() };
        assert_eq!(&decode(&coded, frame, "w").unwrap(), matrix);
        least = least.min(coded.len());
    }
    least
}

#[test]
fn every_law_and_shape_comes_back() {
    for law in laws() {
        for shape in [[0, 0], [0, 3], [3, 0], [1, 1], [1, 200], [200, 1], [3, 5], [37, 41], [70, 131]] {
            for (columns, trellis) in [(false, false), (true, false), (false, true), (true, true)] {
                for q_max in [1, 31, 127] {
                    round_trip(&matrix(law, shape, q_max, columns, trellis));
                }
            }
        }
    }
}

#[test]
fn sizes_are_near_the_entropy() {
    let bits = |law, q_max| {
        let matrix = matrix(law, [512, 512], q_max, false, false);
        8.0 * round_trip(&matrix) as f64 / matrix.codes.len() as f64
    };
    // Of a Gaussian with the variance that rounding adds.
    let gaussian = |sigma: f64| ((sigma * sigma + 1.0 / 12.0).sqrt() * 4.132_731).log2();
    for sigma in [1.0, 2.0, 4.0, 20.0] {
        let (found, floor) = (bits(Law::Gaussian(sigma), 127), gaussian(sigma));
        assert!(found < floor * 1.004 + 0.002, "σ {sigma}: {found} bits, {floor} at best");
    }
    for (law, floor) in [(Law::Zero, 0.0), (Law::Constant(3), 1.0), (Law::Uniform, 255f64.log2())] {
        let found = bits(law, 127);
        assert!(found < 1.01 * floor + 0.05, "{law:?}: {found} bits, {floor} at best");
    }
}

#[test]
fn codes_that_are_no_path_are_refused_with_the_place() {
    let mut wrong = matrix(Law::Gaussian(2.0), [4, 6], 31, false, true);
    wrong.codes[12] = 1;
    let error = encode(&wrong, "blocks.0.w").unwrap_err().to_string();
    let expected = "tensor `blocks.0.w`: expected codes that are a path of the trellis in each row, \
                    found another code at row 2, column 0";
    assert_eq!(error, expected);
}

#[test]
fn other_bytes_are_refused() {
    let matrix = matrix(Law::Gaussian(2.0), [20, 30], 31, true, false);
    let coded = encode(&matrix, "w").unwrap();
    let frame = QuantizedMatrix { codes: Vec::new(), ..matrix };
    let refuse = |coded: &[u8]| decode(coded, frame.clone(), "w").unwrap_err().to_string();
    let start = "stream `w`: expected coded codes of shape [20, 30] within ±31, found ";
    for cut in 0..coded.len() {
        assert!(refuse(&coded[..cut]).starts_with(start));
    }
    assert!(refuse(&[&coded[..], &[0]].concat()).starts_with(start));
    assert_eq!(refuse(&[&[2], &coded[1..]].concat()), format!("{start}flags 2"));
    let low = [&coded[..4], &[0; 4], &coded[8..]].concat();
    assert_eq!(refuse(&low), format!("{start}a coder that starts at 0"));
    let narrow = QuantizedMatrix { q_max: 2, ..frame.clone() };
    assert!(decode(&coded, narrow, "w").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_decode_or_fail(
        bytes in prop::collection::vec(any::<u8>(), 0..400), flags: [bool; 2], q_max in 1u8..128,
    ) {
        let blank = matrix(Law::Zero, [13, 21], q_max, flags[0], flags[1]);
        if let Ok(found) = decode(&bytes, blank, "w") {
            prop_assert!(found.codes.iter().all(|code| code.unsigned_abs() <= q_max));
        }
    }

    #[test]
    fn any_codes_come_back(
        (rows, codes) in (1usize..20, 1usize..20).prop_flat_map(|(rows, cols)| {
            (Just(rows), prop::collection::vec(-127i8..=127, rows * cols))
        }),
        scale in any::<u16>().prop_map(f16::from_bits).prop_filter("finite", |x| x.is_finite()),
    ) {
        let cols = codes.len() / rows;
        round_trip(&QuantizedMatrix::new("w", [rows, cols], 127, codes, vec![scale; rows]).unwrap());
    }
}
