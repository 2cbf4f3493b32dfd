//! Trellis-coded quantisation: which multiples of a step a row of codes may take, one column after another.
//!
//! A row starts in state 0. Even states allow the even multiples, odd states the odd ones and 0; the parity of the index
//! of the multiple taken decides the next of eight states. Each step so has the cost of a grid twice as wide and nearly
//! the error of the narrow one: Marcellin and Fischer 1990; the zero in both halves as in VVC's dependent quantisation.

/// Number of states.
pub const STATES: usize = 8;

/// The next state by state and parity of the index: an Ungerboeck code of eight states.
const NEXT: [[u8; 2]; STATES] = [[0, 1], [3, 2], [5, 4], [6, 7], [1, 0], [2, 3], [4, 5], [7, 6]];

/// A state of the trellis; the default is where each row starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(u8);

impl State {
    /// Its number, below [`STATES`].
    pub fn number(self) -> usize {
        usize::from(self.0)
    }

    /// Whether it allows odd multiples and 0, instead of even ones.
    pub fn is_odd(self) -> bool {
        self.0 & 1 == 1
    }

    /// The code, in multiples of the step, that `index` stands for here.
    pub fn code(self, index: i32) -> i32 {
        2 * index - if self.is_odd() { index.signum() } else { 0 }
    }

    /// The index that stands for `code` here, if this state allows it.
    pub fn index(self, code: i32) -> Option<i32> {
        let index = if self.is_odd() { (code + code.signum()) / 2 } else { code / 2 };
        (self.code(index) == code).then_some(index)
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
            for index in -64..=64 {
                assert_eq!(state.index(state.code(index)), Some(index));
            }
            let allowed: Vec<i32> = (-5..=5).filter(|&code| state.index(code).is_some()).collect();
            assert_eq!(allowed, if state.is_odd() { vec![-5, -3, -1, 0, 1, 3, 5] } else { vec![-4, -2, 0, 2, 4] });
        }
    }

    #[test]
    fn every_state_is_reached_from_two() {
        let mut reached = [0; STATES];
        NEXT.iter().flatten().for_each(|&next| reached[usize::from(next)] += 1);
        assert_eq!(reached, [2; STATES]);
    }
}
