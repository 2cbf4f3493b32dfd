//! A listener that is told everything once, also what is computed again on another machine.

use crate::Scored;
use crate::generate::{Listener, Wants};

/// Between a machine that may be lost and a listener that is not to notice.
pub(crate) struct Once<'a> {
    listener: &'a mut dyn Listener,
    /// Tokens that were generated.
    said: Vec<u32>,
    /// Scores of the prompt that were told.
    scores: usize,
    /// Scores that come again.
    skip: usize,
    /// Whether what is read now is no longer the prompt alone.
    prompt_told: bool,
    /// Whether the listener wants no more.
    ended: bool,
}

impl<'a> Once<'a> {
    /// For the first machine.
    pub(crate) fn new(listener: &'a mut dyn Listener) -> Self {
        Self { listener, said: Vec::new(), scores: 0, skip: 0, prompt_told: false, ended: false }
    }

    /// For the next machine, which reads the prompt from its start.
    pub(crate) fn again(&mut self) {
        self.skip = self.scores;
    }

    /// From now on the text that was said is read as well, of which the listener knows the scores.
    pub(crate) fn read_on(&mut self) {
        self.prompt_told = true;
    }

    /// Tokens that were generated.
    pub(crate) fn said(&self) -> &[u32] {
        &self.said
    }

    /// Whether the listener wants no more.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }
}

impl Listener for Once<'_> {
    fn wants(&self) -> Wants {
        let wants = self.listener.wants();
        Wants { prompt: wants.prompt.filter(|_| !self.prompt_told), ..wants }
    }

    fn on_read(&mut self, mut scores: Vec<Scored>) -> bool {
        let known = self.skip.min(scores.len());
        self.skip -= known;
        scores.drain(..known);
        self.scores += scores.len();
        self.ended = !self.listener.on_read(scores);
        !self.ended
    }

    fn on_token(&mut self, token: u32, score: Option<Scored>) -> bool {
        self.said.push(token);
        self.ended = !self.listener.on_token(token, score);
        !self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Vec<u32>, Vec<u32>);

    impl Listener for Heard {
        fn wants(&self) -> Wants {
            Wants { cost: true, prompt: Some(0), text: Some(0) }
        }

        fn on_read(&mut self, scores: Vec<Scored>) -> bool {
            self.0.extend(scores.iter().map(|s| s.id));
            true
        }

        fn on_token(&mut self, token: u32, _: Option<Scored>) -> bool {
            self.1.push(token);
            token != 9
        }
    }

    fn scored(ids: std::ops::Range<u32>) -> Vec<Scored> {
        ids.map(|id| Scored { id, logprob: -1.0, top: Vec::new() }).collect()
    }

    #[test]
    fn what_comes_again_is_told_once() {
        let mut heard = Heard::default();
        let mut once = Once::new(&mut heard);
        once.on_read(scored(1..4));
        // The machine is lost within the prompt; the next one reads it in other chunks.
        once.again();
        once.on_read(scored(1..3));
        once.on_read(scored(3..6));
        once.on_token(7, None);
        // It is lost in the text.
        once.again();
        once.on_read(scored(1..6));
        once.read_on();
        assert_eq!(once.wants(), Wants { cost: true, prompt: None, text: Some(0) });
        once.on_read(Vec::new());
        assert!(once.on_token(8, None) && !once.ended());
        assert!(!once.on_token(9, None) && once.ended());
        assert_eq!(once.said(), [7, 8, 9]);
        assert_eq!(heard.0, [1, 2, 3, 4, 5]);
        assert_eq!(heard.1, [7, 8, 9]);
    }
}
