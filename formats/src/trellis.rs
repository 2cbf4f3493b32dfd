//! Trellis-coded quantisation: which multiples of a step a row of codes may take, one column after another.
//!
//! A row starts in state 0. Even states allow the even multiples, odd states the odd ones, and the remainder modulo 4 of
//! the multiple taken decides the next of eight states. Each code so has the cost of a grid twice as wide and nearly
//! the error of the narrow one: Marcellin and Fischer 1990.

/// Number of states.
pub const STATES: usize = 8;

/// Parity checks of Ungerboeck's code of this many states (1982), for the lower and the upper bit of a subset.
const CHECKS: [usize; 2] = [0o13, 0o04];

/// The number of the next state, by the number of a state and the upper bit of the subset that the code is from.
pub const NEXT: [[u8; 2]; STATES] = next();

/// The code's encoder as a feedback shift register: the lower bit of the state is that of the subset.
const fn next() -> [[u8; 2]; STATES] {
    let mut next = [[0; 2]; STATES];
    let mut i = 0;
    while i < 2 * STATES {
        let (state, upper) = (i / 2, i % 2);
        let register = state ^ (CHECKS[0] * (state & 1)) ^ (CHECKS[1] * upper);
        next[state][upper] = (register >> 1) as u8;
        i += 1;
    }
    next
}

/// A state of the trellis; the default is where each row starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(u8);

impl State {
    /// Its number, below [`STATES`].
    pub fn number(self) -> usize {
        usize::from(self.0)
    }

    /// Whether it allows odd multiples, instead of even ones.
    pub fn is_odd(self) -> bool {
        self.0 & 1 == 1
    }

    /// The code, in multiples of the step, that `index` stands for here.
    pub fn code(self, index: i32) -> i32 {
        2 * index + i32::from(self.is_odd())
    }

    /// The index that stands for `code` here, if this state allows it.
    pub fn index(self, code: i32) -> Option<i32> {
        (code & 1 == i32::from(self.is_odd())).then_some(code >> 1)
    }

    /// The state after `index`.
    pub fn next(self, index: i32) -> Self {
        Self(NEXT[self.number()][(index & 1) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_indices_are_each_others_inverse() {
        for state in (0..STATES as u8).map(State) {
            for index in -64..=63 {
                assert_eq!(state.index(state.code(index)), Some(index));
            }
            let allowed: Vec<i32> = (-5..=5).filter(|&code| state.index(code).is_some()).collect();
            assert_eq!(allowed, if state.is_odd() { vec![-5, -3, -1, 1, 3, 5] } else { vec![-4, -2, 0, 2, 4] });
        }
    }

    #[test]
    fn every_state_is_reached_from_two() {
        let mut reached = [0; STATES];
        NEXT.iter().flatten().for_each(|&next| reached[usize::from(next)] += 1);
        assert_eq!(reached, [2; STATES]);
    }

    /// What makes the code good: two paths that part and meet again differ by at least 3 squared steps in the first
    /// column, and in all by more than the 16 of two codes of the same subset.
    #[test]
    fn paths_that_meet_again_are_far_apart() {
        let distance = |a: usize, b: usize| {
            let apart = (a as i32 - b as i32).rem_euclid(4);
            f64::from(apart.min(4 - apart).pow(2))
        };
        // The least distance of two paths by the states they have reached.
        let mut least = [[f64::INFINITY; STATES]; STATES];
        let mut met = f64::INFINITY;
        for [a, b] in NEXT.map(|next| next.map(usize::from)) {
            least[a][b] = distance(0, 2);
        }
        for _ in 0..4 * STATES {
            let mut longer = [[f64::INFINITY; STATES]; STATES];
            for (a, b) in (0..STATES * STATES).map(|i| (i / STATES, i % STATES)) {
                for (x, y) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let sum = least[a][b] + distance((a & 1) + 2 * x, (b & 1) + 2 * y);
                    let (to_a, to_b) = (usize::from(NEXT[a][x]), usize::from(NEXT[b][y]));
                    let known = if to_a == to_b { &mut met } else { &mut longer[to_a][to_b] };
                    *known = known.min(sum);
                }
            }
            least = longer;
        }
        assert_eq!(met, 10.0, "the free distance of Ungerboeck's table");
    }
}
